"""From a teacher and a device to the best student that fits, in one call."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_kd import compression, devices, teachers, tflite
from keras_kd._checks import check_integer, check_number, one_line, problem
from keras_kd._keras import check_model, is_model
from keras_kd.devices import Device
from keras_kd.search.candidates import Candidate, NothingFits
from keras_kd.search.code import code_of
from keras_kd.search.forms import Proposal
from keras_kd.search.measuring import Cost, Maker, check_measurable, missed_text
from keras_kd.search.result import FitResult, check_goal
from keras_kd.search.selection import (
    Found,
    measured,
    rungs,
    students_of_family,
    students_of_teacher,
)
from keras_kd.search.state import State, digest_of
from keras_kd.search.teaching import (
    Examples,
    Judge,
    Recipe,
    School,
    as_floats,
    outputs_of,
    usual_loss,
)

# By when, as a share of `max_minutes`, each part of the search ends.
_MEASURED, _TRAINED, _FINISHED = 0.3, 0.75, 0.92
_USUAL_KEEP = 0.99
_CALIBRATION_EXAMPLES = 500
# Fewer do not tell students apart.
_FEWEST_STEPS = 50
_VERIFIED_EXAMPLES = 100
# What a training costs before its first step, until one was seen.
_SECONDS_TO_START = 5.0


def fit_to_device(
    teacher: Any,
    data: Any,
    *,
    validation_data: Any,
    device: str | Device,
    keep: float | None = None,
    metric: str | None = None,
    goal: float | None = None,
    student: Callable[[Any], Any] | None = None,
    trials: int = 12,
    directory: str | Path | None = None,
    max_minutes: float | None = None,
    epochs: int = 9,
    finalists: int = 2,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    student_loss_weight: float = 0.1,
    distillation_losses: Any = None,
    loss: Any = None,
    sparsity: float = 0.7,
    seed: int = 0,
    verbose: int = 1,
) -> FitResult:
    """Find the best student of a teacher that fits a device, and make its verified file.

    Whether a student fits is known before it is trained: the untrained student gets distinct
    weights and quantizers, is converted for the target, and its bytes and its arena in TensorFlow
    Lite Micro (latency in LiteRT for other targets) are those of the real file. Only students that
    fit are trained. Their trainings read the teacher's outputs from a store, so that a step costs
    what the student costs. A few epochs for all are followed by three times as many for a third of
    them, and so on (successive halving); the last ones are trained quantization-aware, pruned
    before where the device counts compressed bytes, converted and verified in the target's
    runtime. The most accurate file that fits wins.

    The validation data choose the student: measure it again on data that had no part in this.

    Args:
        teacher: a trained model of either Keras with one output.
        data: (x, y), the training data as arrays; x may be a dict of arrays by input name.
        validation_data: (x, y), by which students are compared.
        device: a `keras_kd.devices.Device`, or the name of one in `keras_kd.devices.DEVICES`.
        keep: the goal as a share of the teacher's metric, 0.99 if neither `keep` nor `goal` is
            given. Where less is better, as for errors, the metric may be 1 / keep times larger.
        metric: a name in `keras_kd.metrics.MEASURES`; None: the first measure of the task.
        goal: what the metric should reach, instead of `keep`.
        student: None for narrower and shallower forms of the teacher, with its own weights
            (`keras_kd.search.Form`); or a function of `keras_tuner.HyperParameters` that returns
            an untrained Keras 3 model.
        trials: how many students that fit are trained.
        directory: where finished pieces are kept. The same call resumes there after an
            interruption. None keeps nothing.
        max_minutes: after which the search ends with what it has; trainings become shorter and
            fewer so that it is kept. None: no limit.
        epochs: of a finalist's training in float32; half as many follow with quantizers.
        finalists: how many students are trained to the end.
        batch_size: of trainings.
        learning_rate: where the cosine of each training begins (Adam).
        student_loss_weight: share of the loss on labels, see `keras_kd.Distiller`.
        distillation_losses: see `keras_kd.Distiller`; None: its defaults.
        loss: on labels; None: cross-entropy, or the mean square error for a regression.
        sparsity: the share of zeros where the device counts compressed bytes.
        seed: of new weights and of the order of the examples.
        verbose: 0 prints nothing.

    Returns:
        The student, its file and every candidate; `print(result)` shows them.

    Raises:
        ImportError: if a package is missing: tflite-micro where RAM counts, keras-tuner for a
            family of students.
        NothingFits: if no student fits the device (a ValueError); its message names the nearest
            one, by how much it misses, and what would help.
        TypeError: if an argument is of another type.
        ValueError: if an argument is out of range, teacher and data do not fit together, no layer
            of the teacher can be made narrower, the directory holds another search, or
            `max_minutes` was over before a student was found.

    Example:
        ```python
        result = keras_kd.fit_to_device(
            teacher,
            (x_train, y_train),
            validation_data=(x_val, y_val),
            device=keras_kd.devices.Device(flash="64 KB", ram="32 KB"),
            directory="runs/keywords",
        )
        print(result)
        result.save("firmware")
        ```
    """
    board = devices.get(device)
    recipe = _checked_recipe(
        epochs, batch_size, learning_rate, student_loss_weight, distillation_losses, sparsity, seed
    )
    check_integer("trials", trials, at_least=1, fix="pass 12")
    check_integer("finalists", finalists, at_least=1, fix="pass 2")
    if max_minutes is not None:
        check_number("max_minutes", max_minutes, above=0, fix="pass 30, or leave it out")
    check_goal("the metric", keep, goal)
    if keep is not None:
        check_number("keep", keep, above=0, at_most=1, fix="0.99 keeps 99 % of the metric")
    if goal is not None:
        check_number("goal", goal, fix="pass the value that the metric should reach")
    _check_student(student)
    check_model("teacher", teacher)
    train = Examples.of("data", data).for_inputs_of(teacher)
    examples = Examples.of("validation_data", validation_data).for_inputs_of(teacher)
    check_measurable(board)
    judge, outputs = Judge.of(teacher, examples, metric)
    outputs_of(teacher, train, "data", 1)
    teacher_value = judge.value(outputs)
    if goal is None:
        share = _USUAL_KEEP if keep is None else keep
        goal = teacher_value * (share if judge.measure.higher_is_better else 1 / share)
    labels_loss = usual_loss(judge.task, outputs, examples.y) if loss is None else loss
    recipe = Recipe(**{**vars(recipe), "loss": labels_loss})
    identity = {
        "teacher": digest_of(teacher.get_weights()),
        "data": digest_of([train.x, train.y]),
        "validation data": digest_of([examples.x, examples.y]),
        "device": str(board) + f" {board.kernels} {board.compressed}",
        "metric": judge.measure.name,
        "student": _family_digest(student),
        "trials": trials,
        "finalists": finalists,
        **{name: _described(value) for name, value in vars(recipe).items()},
    }
    state = State(directory, identity)
    search = _Search(
        teacher=teacher,
        family=student,
        train=train,
        judge=judge,
        output_shape=outputs.shape[1:],
        board=board,
        recipe=recipe,
        state=state,
        trials=trials,
        finalists=finalists,
        max_seconds=None if max_minutes is None else 60 * max_minutes,
        say=_print if verbose else _nothing,
    )
    search.say(
        f"Fit to {board}; teacher: {judge.measure.heading} {judge.text(teacher_value)}, goal "
        f"{judge.text(goal)}"
    )
    winner, model, plain = search.run()
    value = winner.file_value if winner.file_value is not None else math.nan
    return FitResult(
        model=model,
        student=plain,
        winner=winner,
        candidates=search.candidates(),
        device=board,
        teacher_value=teacher_value,
        goal=goal,
        reached=judge.signed(value) >= judge.signed(goal),
        metric=judge.measure.heading,
        minutes=state.seconds / 60,
        code=search.code(winner.name),
        _judge=judge,
    )


def _checked_recipe(
    epochs: int,
    batch_size: int,
    learning_rate: float,
    student_loss_weight: float,
    distillation_losses: Any,
    sparsity: float,
    seed: int,
) -> Recipe:
    return Recipe(
        epochs=check_integer("epochs", epochs, at_least=1, fix="pass 9"),
        batch_size=check_integer("batch_size", batch_size, at_least=1, fix="pass 64"),
        learning_rate=check_number("learning_rate", learning_rate, above=0, fix="pass 2e-3"),
        student_loss_weight=check_number(
            "student_loss_weight", student_loss_weight, at_least=0, at_most=1, fix="pass 0.1"
        ),
        distillation_losses=distillation_losses,
        loss=None,
        sparsity=check_number("sparsity", sparsity, above=0, at_most=0.99, fix="pass 0.7"),
        seed=check_integer("seed", seed, at_least=0, fix="pass 0"),
    )


def _described(value: Any) -> Any:
    """A setting in types that JSON knows; of losses the class and its arguments.

    Names are left out: Keras counts them in each process.
    """
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, Mapping):
        return {str(key): _described(item) for key, item in value.items() if key != "name"}
    if isinstance(value, list | tuple):
        return [_described(item) for item in value]
    try:
        config = keras.saving.serialize_keras_object(value)
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        config = None
    return _described(config) if isinstance(config, Mapping) else type(value).__name__


def _family_digest(student: Any) -> str | None:
    """What distinguishes a family of students: its source, or its name where there is none."""
    if student is None:
        return None
    try:
        source = inspect.getsource(student if inspect.isroutine(student) else type(student))
    except (OSError, TypeError):
        source = str(getattr(student, "__qualname__", type(student).__name__))
    return digest_of(np.frombuffer(source.encode(), np.uint8))


def _check_student(student: Any) -> None:
    if student is None or (callable(student) and not is_model(student)):
        return
    raise problem(
        f"student={student!r:.100}",
        "None, or a function of keras_tuner.HyperParameters that returns a model",
        "pass student=lambda hp: keras.models.clone_model(model) for a single student",
        kind=TypeError,
    )


def _print(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)


def _nothing(text: str) -> None:
    """Print nothing."""


@dataclass
class _Search:
    """One search: what it was asked for, and its progress."""

    teacher: Any
    family: Callable[[Any], Any] | None
    train: Examples
    judge: Judge
    output_shape: tuple[int, ...]
    board: Device
    recipe: Recipe
    state: State
    trials: int
    finalists: int
    max_seconds: float | None
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self._maker = Maker(
            self.board, self.train.x, self.recipe.sparsity if self.board.compressed else 0.0
        )
        self._proposals: dict[str, Proposal] = {}
        self._start_seconds = _SECONDS_TO_START

    def run(self) -> tuple[Candidate, tflite.TFLiteModel, keras.Model]:
        """Search; the winner's row, its file, and its student."""
        found = self._measure()
        names = [each.proposal.name for each in found]
        stored = teachers.StoredTeacher.create(
            self.teacher, (self.train.x, self.train.y), self.state.store, dtype="float32"
        )
        school = School(stored, self.train, self.recipe)
        order = self._halve(school, names)
        return self._finish(school, order)

    def candidates(self) -> tuple[Candidate, ...]:
        """Every student that was looked at, those with the best metric first."""
        rows = [self._candidate(name) for name in self.state.candidates]

        def key(row: Candidate) -> tuple[bool, bool, float, int]:
            value = row.best_value
            return (
                row.file_value is None,
                value is None,
                0.0 if value is None else -self.judge.signed(value),
                0 if row.cost is None else row.cost.bytes,
            )

        return tuple(sorted(rows, key=key))

    def code(self, name: str) -> str:
        """Python code that makes a finished student again."""
        entry = self.state.entry(name)
        trainings = [(rung["epochs"], rung["seed"]) for rung in entry["rungs"]]
        return code_of(
            self._proposals[name],
            trainings,
            self._seed(name, len(trainings)),
            self.recipe,
            self.board,
            _CALIBRATION_EXAMPLES,
            is_named=isinstance(self.train.x, Mapping),
            is_aware=entry["final"]["aware"],
            with_examples=entry["final"]["examples"],
        )

    def _left(self, share: float) -> float | None:
        """Seconds until a share of the time is over; None without a limit."""
        if self.max_seconds is None:
            return None
        return max(0.0, share * self.max_seconds - self.state.seconds)

    def _is_over(self, share: float) -> bool:
        return self._left(share) == 0.0

    def _measure(self) -> list[Found]:
        def is_over() -> bool:
            return self._is_over(_MEASURED)

        if self.family is None:
            found = students_of_teacher(self.teacher, self.board, self.trials, self._look, is_over)
        else:
            found = students_of_family(
                self.family, self.board, self.trials, self.recipe.seed, self._look, is_over
            )
        if not found and is_over():
            raise problem(
                f"max_minutes={(self.max_seconds or 0) / 60:g}, which was over before a student "
                f"that fits was found ({len(self.state.candidates)} were measured)",
                "time to look for one",
                "pass more minutes; with the same directory the search resumes",
            )
        if not found:
            raise NothingFits(self.board, self.candidates())
        return found

    def _look(self, proposal: Proposal) -> Found:
        """What a proposal takes, measured now or in an earlier run."""
        name = proposal.name
        self._proposals[name] = proposal
        known = self.state.candidates.get(name)
        if known is None:
            found = measured(
                proposal,
                lambda student: self._maker.cost_of_untrained(student, self.recipe.seed),
                self._check_fits_teacher,
            )
            known = {
                "settings": proposal.settings(),
                "cost": None if found.cost is None else found.cost.to_dict(),
                "reason": found.reason,
                "rungs": [],
                "final": None,
            }
            self.state.candidates[name] = known
            self.state.save()
            row = self._candidate(name)
            verdict = "fits" if row.fits else row.reason or "too large: "
            if row.cost is not None:
                verdict += missed_text(row.misses, row.cost, self.board)
            count = len(self.state.candidates)
            fitting = sum(self._candidate(each).fits for each in self.state.candidates)
            self.say(
                f"Measured {count} ({fitting} of {self.trials} fit): {name}: {verdict}; "
                f"{self._clock()}"
            )
        cost = None if known["cost"] is None else Cost.from_dict(known["cost"])
        return Found(proposal, cost, known["reason"])

    def _check_fits_teacher(self, student: keras.Model) -> None:
        first = keras.tree.map_structure(lambda array: array[:1], self.train.x)
        try:
            student(first)
        except Exception as error:
            # Keras and TensorFlow raise errors of many kinds here.
            raise problem(
                f"a student that cannot be run on the data ({one_line(error)[:150]})",
                "the inputs of the teacher",
                "give it the same inputs",
            ) from error
        shape = tuple(student.output_shape)[1:]
        if shape != self.output_shape:
            raise problem(
                f"a student with outputs of shape {shape}",
                f"outputs of shape {self.output_shape}, as the teacher's",
                "give its last layer as many units",
            )

    def _halve(self, school: School, names: list[str]) -> list[str]:
        """Train rung after rung; the names, those with the best metric first."""
        recipe = self.recipe
        steps = -(-len(self.train) // recipe.batch_size)
        fewest = min(recipe.epochs, -(-_FEWEST_STEPS // steps))
        plan = [
            (count, max(epochs, fewest))
            for count, epochs in rungs(len(names), self.finalists, recipe.epochs)
        ]
        order = names
        for number, (count, epochs) in enumerate(plan):
            left = self._left(_TRAINED)
            # Those that there was no time for do not go on.
            chosen = [name for name in order[:count] if len(self._rungs(name)) >= number]
            if left is not None:
                seconds = left / (len(plan) - number)
                known = [name for name in chosen if len(self._rungs(name)) > number]
                affordable = max(1, int(seconds / (2 * self._start_seconds)))
                chosen = chosen[: max(len(known), affordable)]
            for place, name in enumerate(chosen):
                if len(self._rungs(name)) > number:
                    continue
                if number and self._is_over(_TRAINED):
                    return order
                rung_end = self._left(_TRAINED)
                rest = len(chosen) - place
                seconds = None if rung_end is None else rung_end / (len(plan) - number) / rest
                self._train(school, name, number, epochs, seconds)
                self._tell(plan, number, place + 1, len(chosen), name)
            order = sorted(chosen, key=self._rank) + order[len(chosen) :]
        return order

    def _train(
        self, school: School, name: str, number: int, epochs: int, seconds: float | None
    ) -> None:
        student = self._proposals[name].build()
        if number:
            self.state.load_weights(name, f"rung{number - 1}", student)
        before = self.state.seconds
        seed = self._seed(name, number)
        school.teach(student, epochs, seconds, seed=seed)
        value = self.judge.of_model(student)
        self.state.save_weights(name, f"rung{number}", student)
        took = self.state.seconds - before
        if seconds is not None and took > seconds:
            self._start_seconds = max(self._start_seconds, took - seconds)
        self._rungs(name).append({"epochs": epochs, "value": value, "seed": seed, "took": took})
        self.state.save()

    def _tell(
        self, plan: list[tuple[int, int]], number: int, place: int, count: int, name: str
    ) -> None:
        value = self._rungs(name)[-1]["value"]
        trained = [each for each in self.state.candidates if self._rungs(each)]
        best = min(trained, key=self._rank)
        best_value = self._rungs(best)[-1]["value"]
        epochs = plan[number][1]
        done = [rung for each in trained for rung in self._rungs(each)]
        rest = (count - place) * epochs + sum(n * e for n, e in plan[number + 1 :])
        rest += plan[-1][0] * self.recipe.fine_tuning_epochs
        seconds = rest * sum(rung["took"] for rung in done) / sum(rung["epochs"] for rung in done)
        self.say(
            f"Round {number + 1} of {len(plan)}, trained {place} of {count} for {epochs} epochs: "
            f"{name}: {self.judge.text(value)}; best {self.judge.text(best_value)} ({best}); "
            f"{self._clock()}, about {seconds / 60:.1f} min left"
        )

    def _clock(self) -> str:
        used = f"{self.state.seconds / 60:.1f} min"
        return used if self.max_seconds is None else f"{used} of {self.max_seconds / 60:g}"

    def _finish(
        self, school: School, order: list[str]
    ) -> tuple[Candidate, tflite.TFLiteModel, keras.Model]:
        """Make the files of the best students; the winner, its file and its student."""
        done: list[str] = []
        for name in order:
            is_enough = len(done) >= self.finalists or (done and self._is_over(_FINISHED))
            if any(self._candidate(each).fits for each in done) and is_enough:
                break
            if not self._rungs(name):
                break
            if self.state.entry(name)["final"] is None:
                self._make_file(school, name, self.finalists - len(done))
            if self.state.entry(name)["final"].get("value") is not None:
                done.append(name)
        fitting = [row for row in map(self._candidate, done) if row.fits]
        if not fitting:
            raise NothingFits(self.board, self.candidates())
        winner = min(
            fitting,
            key=lambda row: (
                -self.judge.signed(row.file_value or 0.0),
                (row.file_cost or row.cost).bytes,  # pyright: ignore[reportOptionalMemberAccess]
            ),
        )
        plain = self._proposals[winner.name].build()
        self.state.load_weights(winner.name, "final", plain)
        model = self.state.load_file(winner.name)
        some = keras.tree.map_structure(
            lambda array: array[:_VERIFIED_EXAMPLES], self.judge.examples.x
        )
        x = as_floats(model, some)
        # A file on disk has no evidence with it.
        model.verification = tflite.verify(model, plain, x)
        # The file that a process was killed over may be another one than was measured.
        if self.board.target == "microcontroller" and tflite.microcontroller.is_installed():
            tflite.microcontroller.check_agreement(model, x)
        return winner, model, plain

    def _make_file(self, school: School, name: str, rest: int) -> None:
        entry = self.state.entry(name)
        student = self._proposals[name].build()
        number = len(entry["rungs"])
        self.state.load_weights(name, f"rung{number - 1}", student)
        end = self._left(_FINISHED)
        seconds = None if end is None else end / max(1, rest) / (2 if self.board.compressed else 1)
        seed = self._seed(name, number)
        try:
            if self.board.compressed:
                student = school.prune(student, seconds, seed)
            aware = self._maker.aware(student, _CALIBRATION_EXAMPLES)
            is_aware = not isinstance(aware, keras.Model)
            if is_aware:
                school.quantize(aware, seconds, seed)
            model, with_examples = self._maker.file(
                aware,
                _CALIBRATION_EXAMPLES,
                verification_data=keras.tree.map_structure(
                    lambda array: array[:_VERIFIED_EXAMPLES], self.judge.examples.x
                ),
            )
        except ValueError as error:
            entry["final"] = {"reason": one_line(error)[:300]}
            self.state.save()
            self.say(f"No file of {name}: {entry['final']['reason']}")
            return
        plain = compression.strip(aware)
        self.state.save_file(name, model)
        self.state.save_weights(name, "final", plain)
        value = self.judge.of_file(model)
        entry["final"] = {
            "value": value,
            "cost": self._maker.cost(model, plain.count_params()).to_dict(),
            "aware": is_aware,
            "examples": with_examples,
        }
        self.state.save()
        row = self._candidate(name)
        self.say(
            f"File of {name}: {model.size:,} bytes, {self.judge.text(value)} in int8, "
            f"{'fits' if row.fits else 'does not fit'}; {self._clock()}"
        )

    def _candidate(self, name: str) -> Candidate:
        entry = self.state.entry(name)
        final = entry["final"] or {}
        rungs_ = entry["rungs"]
        cost = None if entry["cost"] is None else Cost.from_dict(entry["cost"])
        file_cost = Cost.from_dict(final["cost"]) if "cost" in final else None
        last = file_cost or cost
        epochs = sum(rung["epochs"] for rung in rungs_)
        if file_cost is not None:
            epochs += self.recipe.fine_tuning_epochs * (final["aware"] + self.board.compressed)
        return Candidate(
            name=name,
            settings=entry["settings"],
            cost=cost,
            misses={} if last is None else last.misses(self.board),
            reason=entry["reason"] or final.get("reason", ""),
            epochs=epochs,
            value=rungs_[-1]["value"] if rungs_ else None,
            file_value=final.get("value"),
            file_cost=file_cost,
        )

    def _rungs(self, name: str) -> list[dict[str, Any]]:
        return self.state.entry(name)["rungs"]

    def _rank(self, name: str) -> tuple[float, float]:
        """Sorts the best first: the metric, then fewer bytes."""
        rungs_ = self._rungs(name)
        value = self.judge.signed(rungs_[-1]["value"]) if rungs_ else -np.inf
        cost = self.state.entry(name)["cost"]
        # A NaN is worse than everything.
        return (np.inf if np.isnan(value) else -value), 0 if cost is None else cost["bytes"]

    def _seed(self, name: str, number: int) -> int:
        """Of one training; the same whichever trainings came before it."""
        return sum(map(ord, name)) % 9973 + 10007 * number
