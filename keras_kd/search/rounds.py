"""One search: students measured, trained in rounds, finished as files."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_kd import compression, teachers, tflite
from keras_kd._checks import one_line, problem
from keras_kd.compression.pruning.channels import channels_of
from keras_kd.devices import Device
from keras_kd.search.candidates import Candidate, NothingFits
from keras_kd.search.code import code_of
from keras_kd.search.forms import OfTeacher, Proposal, fixed_layers, readable
from keras_kd.search.measuring import Cost, Maker, missed_text
from keras_kd.search.selection import (
    Found,
    measured,
    rungs,
    students_of_family,
    students_of_teacher,
)
from keras_kd.search.state import State
from keras_kd.search.teaching import Examples, Judge, Recipe, School, as_floats

# By when, as a share of `max_minutes`, students are measured and trained, if time is left then for
# what follows. A search without a student that fits continues to measure.
_MEASURED, _TRAINED = 0.3, 0.75
_CALIBRATION_EXAMPLES = 500
# Fewer do not tell students apart.
_FEWEST_STEPS = 50
_VERIFIED_EXAMPLES = 100
# What a training costs before its first step, until one was seen.
_SECONDS_TO_START = 5.0
# The file of a finalist takes so many times as long as a measured one, until one was made: it reads
# its ranges from more examples, and is run on the validation data. In the end it is verified again.
_FILE_OF_MEASURE, _END_OF_MEASURE = 1.5, 0.5


@dataclass
class Search:
    """One search: its arguments and its progress."""

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
        starts = [
            rung["start"] for each in self.state.candidates.values() for rung in each["rungs"]
        ]
        self._start_seconds = max([_SECONDS_TO_START, *starts])
        entries = self.state.candidates.values()
        self._measures = [each["took"] for each in entries if each.get("took")]
        finals = [each["final"] or {} for each in entries]
        self._file_seconds = max([0.0, *(each.get("took", 0.0) for each in finals)])
        # What an earlier run has measured costs no time; forms with new weights are not measured.
        self._remembered = {
            name
            for name, entry in self.state.candidates.items()
            if self.family is not None or entry["settings"]["seed"] is None
        }
        self._measures_now = False

    def run(self) -> tuple[Candidate, tflite.TFLiteModel, keras.Model]:
        """Search; the winner's row, its file, and its student."""
        found = self._measure()
        names = [each.proposal.name for each in found]
        stored = teachers.StoredTeacher.create(
            self.teacher, (self.train.x, self.train.y), self.state.store, dtype="float32"
        )
        school = School(stored, self.train, self.recipe)
        order = self._renew(school, self._halve(school, names))
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
            given=self.train.given,
            prepared=self.train.code,
            ended_early=any(part["ended_early"] for part in (*entry["rungs"], entry["final"])),
        )

    def _left(self, share: float = 1.0, reserved: float = 0.0) -> float | None:
        """Seconds until a share of the time is over, or only those reserved are left.

        None without a limit.
        """
        if self.max_seconds is None:
            return None
        end = min(share * self.max_seconds, self.max_seconds - reserved)
        return max(0.0, end - self.state.seconds)

    def _left_to_measure(self) -> float | None:
        # Without a student there is nothing to train.
        has_one = any(self._candidate(name).fits for name in self.state.candidates)
        after = self._start_seconds + self._seconds_of_a_file() + self._seconds_to_end()
        return self._left(_MEASURED if has_one else 1.0, after)

    def _left_to_train(self) -> float | None:
        return self._left(_TRAINED, self._seconds_of_a_file() + self._seconds_to_end())

    def _left_to_finish(self) -> float | None:
        return self._left(reserved=self._seconds_to_end())

    def _seconds_of_a_file(self) -> float:
        """From the last weights of a finalist in float32 to its file, trained for a step."""
        return self._seconds_to_make() + self._last_trainings * self._start_seconds

    def _seconds_to_make(self) -> float:
        """The same without its trainings."""
        return self._file_seconds or _FILE_OF_MEASURE * self._seconds_to_measure()

    def _seconds_to_end(self) -> float:
        return _END_OF_MEASURE * self._seconds_to_measure()

    def _seconds_to_measure(self) -> float:
        # The first one imports packages, too.
        return statistics.median_low(self._measures or [0.0])

    @property
    def _last_trainings(self) -> int:
        """How many trainings turn a finalist into its file."""
        return 1 + self.board.compressed

    def _measure(self) -> list[Found]:
        def is_over() -> bool:
            is_done = self._measures_now or not self._remembered
            return is_done and self._left_to_measure() == 0.0

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
            fixed = () if self.family else fixed_layers(channels_of(readable(self.teacher)))
            raise NothingFits(self.board, self.candidates(), fixed)
        return found

    def _look(self, proposal: Proposal) -> Found:
        """What a proposal takes, measured now or in an earlier run."""
        name = proposal.name
        self._proposals[name] = proposal
        self._remembered.discard(name)
        known = self.state.candidates.get(name)
        if known is None:
            self._measures_now = True
            before = self.state.seconds
            found = measured(
                proposal,
                lambda student: self._maker.cost_of_untrained(student, self.recipe.seed),
                self._check_fits_teacher,
            )
            cost = None if found.cost is None else found.cost.to_dict()
            took = self.state.seconds - before
            self._measures.append(took)
            known = self._enter(proposal, cost, found.reason, took)
            row = self._candidate(name)
            verdict = "fits" if row.fits else row.reason or "too large: "
            if row.cost is not None:
                verdict += missed_text(row.misses, row.cost, self.board)
            fitting = sum(self._candidate(each).fits for each in self.state.candidates)
            enough = f"{min(fitting, self.trials)} of {self.trials}"
            self.say(
                f"Measured {len(self.state.candidates)}, {enough} students that "
                f"fit are found: {name}: {verdict}; {self._clock()}"
            )
        cost = None if known["cost"] is None else Cost.from_dict(known["cost"])
        return Found(proposal, cost, known["reason"])

    def _enter(
        self, proposal: Proposal, cost: Mapping[str, Any] | None, reason: str, took: float = 0.0
    ) -> dict[str, Any]:
        """Make the entry of a student, and keep it."""
        entry = {
            "settings": proposal.settings(),
            "cost": cost,
            "reason": reason,
            "took": took,
            "rungs": [],
            "final": None,
        }
        self.state.candidates[proposal.name] = entry
        self.state.save()
        return entry

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
            left = self._left_to_train()
            # Those that were not trained for lack of time are dropped.
            chosen = [name for name in order[:count] if len(self._rungs(name)) >= number]
            if left is not None:
                seconds = left / (len(plan) - number)
                known = [name for name in chosen if len(self._rungs(name)) > number]
                affordable = max(1, int(seconds / (2 * self._start_seconds)))
                chosen = chosen[: max(len(known), affordable)]
            for place, name in enumerate(chosen):
                if len(self._rungs(name)) > number:
                    continue
                rung_end = self._left_to_train()
                if number and rung_end == 0.0:
                    return order
                rest = len(chosen) - place
                seconds = None if rung_end is None else rung_end / (len(plan) - number) / rest
                self._train(school, name, number, epochs, seconds)
                self._tell(plan, number, place + 1, len(chosen), name)
            order = sorted(chosen, key=self._rank) + order[len(chosen) :]
        return order

    def _renew(self, school: School, order: list[str]) -> list[str]:
        """Train the first forms from new weights, too; the names, the best of these first.

        The teacher's weights can be the worse start in the end (Liu et al., "Rethinking the Value
        of Network Pruning", ICLR 2019), which the first epochs of a round cannot tell.
        """
        finalists = order[: self.finalists]
        renewed = []
        for name in finalists:
            proposal = self._proposals[name]
            epochs = sum(rung["epochs"] for rung in self._rungs(name))
            if not isinstance(proposal, OfTeacher) or not epochs:
                continue
            new = proposal.renewed(self.recipe.seed)
            if new.name not in self.state.candidates:
                left = self._left_to_train()
                if left is not None and left < self._start_seconds:
                    break
                # A file of the same form takes the same.
                cost = self.state.entry(name)["cost"]
                self._enter(new, cost, "")
            self._proposals[new.name] = new
            if not self._rungs(new.name):
                self._train(school, new.name, 0, epochs, self._left_to_train())
                value = self._value_text(new.name)
                self.say(f"Trained for {epochs} epochs: {new.name}: {value}; {self._clock()}")
            renewed.append(new.name)
        return sorted([*finalists, *renewed], key=self._rank) + order[len(finalists) :]

    def _train(
        self, school: School, name: str, number: int, epochs: int, seconds: float | None
    ) -> None:
        student = self._proposals[name].build()
        if number:
            self.state.load_weights(name, f"rung{number - 1}", student)
        before = self.state.seconds
        seed = self._seed(name, number)
        deadline = school.teach(student, epochs, seconds, seed=seed)
        value = self.judge.of_model(student)
        self.state.save_weights(name, f"rung{number}", student)
        took = self.state.seconds - before
        # What it took beyond its time, if it had one, was needed to begin, too.
        beyond = 0.0 if seconds is None else took - seconds
        start = max(deadline.start_seconds or 0.0, beyond)
        self._start_seconds = max(self._start_seconds, start)
        rung = {"epochs": epochs, "value": value, "seed": seed, "took": took, "start": start}
        self._rungs(name).append({**rung, "ended_early": deadline.is_over})
        self.state.save()

    def _tell(
        self, plan: list[tuple[int, int]], number: int, place: int, count: int, name: str
    ) -> None:
        trained = [each for each in self.state.candidates if self._rungs(each)]
        best = min(trained, key=self._rank)
        best_value = self._rungs(best)[-1]["value"]
        epochs = plan[number][1]
        done = [rung for each in trained for rung in self._rungs(each)]
        rest = (count - place) * epochs + sum(n * e for n, e in plan[number + 1 :])
        rest += plan[-1][0] * self.recipe.fine_tuning_epochs
        if self.family is None:
            rest += plan[-1][0] * sum(e for _, e in plan)
        seconds = rest * sum(rung["took"] for rung in done) / sum(rung["epochs"] for rung in done)
        if (left := self._left()) is not None:
            seconds = min(seconds, left)
        self.say(
            f"Round {number + 1} of {len(plan)}, trained {place} of {count} for {epochs} epochs: "
            f"{name}: {self._value_text(name)}; best {self.judge.text(best_value)} ({best}); "
            f"{self._clock()}, about {seconds / 60:.1f} min left"
        )

    def _value_text(self, name: str) -> str:
        rung = self._rungs(name)[-1]
        return self.judge.text(rung["value"]) + (" (ended early)" if rung["ended_early"] else "")

    def _clock(self) -> str:
        used = f"{self.state.seconds / 60:.1f} min"
        return used if self.max_seconds is None else f"{used} of {self.max_seconds / 60:g}"

    def _finish(
        self, school: School, order: list[str]
    ) -> tuple[Candidate, tflite.TFLiteModel, keras.Model]:
        """Make the files of the best students; the winner, its file and its student."""
        done: list[str] = []
        for name in order:
            left = self._left_to_finish()
            is_over = left is not None and left < self._seconds_of_a_file()
            is_enough = len(done) >= self.finalists or is_over
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
        seconds = self._seconds_of_a_last_training(rest)
        seed = self._seed(name, number)
        before = self.state.seconds - school.seconds
        ended_early = False
        try:
            if self.board.compressed:
                student, ended_early = school.prune(student, seconds, seed)
            aware = self._maker.aware(student, _CALIBRATION_EXAMPLES)
            is_aware = not isinstance(aware, keras.Model)
            if is_aware:
                ended_early |= school.quantize(aware, seconds, seed)
            model, with_examples = self._maker.file(
                aware,
                _CALIBRATION_EXAMPLES,
                verification_data=keras.tree.map_structure(
                    lambda array: array[:_VERIFIED_EXAMPLES], self.judge.examples.x
                ),
            )
        except ValueError as error:
            entry["final"] = {"reason": one_line(error)[:500]}
            self.state.save()
            self.say(f"No file of {name}: {entry['final']['reason']}")
            return
        plain = compression.strip(aware)
        self.state.save_file(name, model)
        self.state.save_weights(name, "final", plain)
        value = self.judge.of_file(model)
        cost = self._maker.cost(model, plain.count_params())
        # Without the trainings.
        took = self.state.seconds - school.seconds - before
        self._file_seconds = max(self._file_seconds, took)
        entry["final"] = {
            "value": value,
            "cost": cost.to_dict(),
            "took": took,
            "aware": is_aware,
            "examples": with_examples,
            "ended_early": ended_early,
        }
        self.state.save()
        row = self._candidate(name)
        self.say(
            f"File of {name}: {model.size:,} bytes, {self.judge.text(value)} in int8, "
            f"{'fits' if row.fits else 'does not fit'}; {self._clock()}"
        )

    def _seconds_of_a_last_training(self, files: int) -> float | None:
        """How long each training of the next file may take, if so many files are to be made."""
        left = self._left_to_finish()
        if left is None:
            return None
        affordable = max(1, min(files, int(left / self._seconds_of_a_file())))
        return max(0.0, left / affordable - self._seconds_to_make()) / self._last_trainings

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
