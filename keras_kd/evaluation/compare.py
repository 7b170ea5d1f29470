"""Measuring several models on the same test examples."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from keras_kd._checks import check_choice, problem
from keras_kd._keras import input_names, is_keras_model, is_tf_keras_model
from keras_kd._limits import is_watched, watched_batch
from keras_kd.compression.pruning.sparsity import prunable_weights, sparsity
from keras_kd.evaluation.comparison import Comparison, Disagreement, Measurement, measure_key
from keras_kd.evaluation.machine import machine
from keras_kd.metrics import (
    OF_TEACHER,
    TASKS,
    Answers,
    Estimate,
    Statistic,
    estimate,
    labels_by_output,
    labels_for,
    task_of,
)
from keras_kd.metrics.measures import confusion, per_class, reliability
from keras_kd.metrics.tasks import CLASSIFYING
from keras_kd.tflite import TFLiteModel, microcontroller
from keras_kd.tflite.streams import has_states
from keras_kd.tflite.student import Signature

_BATCH_SIZE = 256
# The key in `models` of the model that the others agree with, if no other is named.
_TEACHER = "teacher"
# More would make a page, and the file of the numbers, longer than anybody reads.
MOST_CLASSES = 40
_MOST_PICTURES = 12

Outputs = dict[str, np.ndarray]


def compare(
    models: Mapping[str, Any],
    x: Any,
    y: Any = None,
    *,
    task: str | Mapping[str, str] | None = None,
    teacher: Any = None,
    baseline: str | None = None,
    groups: Any = None,
    class_names: Sequence[str] = (),
    name: str = "",
    sources: Mapping[str, Any] | None = None,
    on_measured: Callable[[str], None] | None = None,
) -> Comparison:
    """Measure models on the same test examples, side by side.

    Students with `stateful=True`, and their files, get the examples as the steps of one stream.

    A `TFLiteModel` is run itself, in LiteRT: its accuracy is the accuracy on the device. If
    tflite-micro is installed and supports it, it also runs there once, to measure its arena.

    What is measured depends on the task of each output (`keras_kd.metrics.MEASURES`), which follows
    from the outputs of the first model and from the labels (`keras_kd.metrics.task_of`). Each
    number has an interval of 95 % confidence, and so has its difference to the baseline, which is
    computed on pairs: both models saw the same examples (`keras_kd.metrics.estimate`).

    Args:
        models: a Keras model or a `keras_kd.tflite.TFLiteModel` for each name. All have the same
            outputs.
        x: test examples: an array shaped (examples, ...); with several inputs a dict by input name,
            or a list in the order of a Keras model among `models`.
        y: for each example the class (a number or a one-hot row), the labels (0 or 1 in the shape
            of the outputs), the targets of a regression, the relevances of a ranking, or 1 for an
            anomaly that an autoencoder should not reconstruct. With several outputs a dict by
            output name; it need not name all. None: only what needs no labels is measured.
        task: one of `keras_kd.metrics.TASKS`, or a dict by output name. None: see above; a ranking
            must be named.
        teacher: the model to agree with, or its name in `models`. None: the one called "teacher",
            if there is one.
        baseline: the name of the model that the others are compared with. None: the first.
        groups: for a ranking of single scores: the query of each example, shaped (examples,).
            Without it each row of the outputs is a query.
        class_names: the names of the classes or labels. Empty: they go by their numbers.
        name: what the data are called in the table and on the page.
        sources: the Keras models that files were converted from, by the names in `models`; they
            give the number of parameters and the sparsity.
        on_measured: called with the name of each model as soon as it was run, to show progress.

    Returns:
        A `Comparison` with a row for each model, in the order of `models`.

    Raises:
        TypeError: if a model is neither a Keras model nor a `TFLiteModel`.
        ValueError: if there are no models or no examples, if labels, groups or names do not fit, or
            if models have different outputs.

    Example:
        ```python
        comparison = compare({"teacher": teacher, "int8": model}, x_test, y_test)
        print(comparison)
        comparison["int8"].quality["accuracy"].difference  # to the teacher, with its interval
        ```
    """
    sources = sources or {}
    _check_names(models, sources, baseline)
    if isinstance(teacher, str):
        teacher = models[check_choice("teacher", teacher, list(models))]
    elif teacher is None:
        teacher = models.get(_TEACHER)
    baseline = next(iter(models)) if baseline is None else baseline
    if teacher is not None:
        _check_model(_TEACHER, teacher)
    examples = _Examples.of(x, models.values())
    # As many as there are examples, and finite: what can be said before a model runs.
    labels_by_output(y, list(y) if isinstance(y, Mapping) else ["output"], examples.count)
    outputs: dict[str, Outputs] = {}
    for model_name, model in models.items():
        found = _outputs(model_name, model, examples)
        if not outputs:
            test = _Test.of(found, y, task, groups, examples)
            names = _class_names(
                class_names, {each: test.answers(each, values) for each, values in found.items()}
            )
        outputs[model_name] = _renamed(found, test.tasks)
        _check_outputs(outputs)
        if on_measured is not None:
            on_measured(model_name)
    teacher_name = next((key for key, model in models.items() if model is teacher), None)
    taught = None
    if teacher is not None:
        taught = outputs[teacher_name] if teacher_name else _outputs(_TEACHER, teacher, examples)
        taught = _renamed(taught, test.tasks)
        _check_outputs({**outputs, "the teacher": taught})
    quality, answers = _quality(outputs, taught, test, baseline)
    details = {key: _details(found) for key, found in answers.items()}
    comparison = Comparison(
        name=name,
        examples=examples.count,
        tasks=test.tasks,
        baseline=baseline,
        teacher=teacher_name,
        class_names=names,
        rows=tuple(
            Measurement(
                name=key,
                quality=quality[key],
                **details[key],
                **_weights(sources.get(key, model)),
                **_file(model, examples.first()),
            )
            for key, model in models.items()
        ),
        machine=machine(),
    )
    if comparison.pair is None:
        return comparison
    return replace(
        comparison, disagreements=_disagreements(*(answers[key] for key in comparison.pair))
    )


class _Examples(NamedTuple):
    """Examples by input name; for models with one input the name may be any."""

    arrays: dict[str, np.ndarray]
    count: int

    @classmethod
    def of(cls, x: Any, models: Any) -> _Examples:
        """Take examples as users give them.

        Raises:
            ValueError: if there are none, or if their lengths or names do not fit.
        """
        if isinstance(x, Mapping):
            arrays = {str(name): np.asarray(values) for name, values in x.items()}
        elif isinstance(x, list | tuple) and any(len(_inputs(model)) > 1 for model in models):
            names = next(
                (_inputs(m) for m in models if not isinstance(m, TFLiteModel) and _inputs(m)), []
            )
            if len(names) != len(x):
                raise problem(
                    f"x as a list of {len(x)} arrays",
                    f"as many as a Keras model among the models has inputs ({len(names)})",
                    "pass a dict by input name",
                )
            arrays = dict(zip(names, map(np.asarray, x), strict=True))
        else:
            arrays = {"": np.asarray(x)}
        counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
        if not counts or 0 in counts.values():
            raise problem("x without test examples", "at least one", "pass x_test")
        if len(set(counts.values())) > 1:
            raise problem(
                f"x with these numbers of examples: {counts}",
                "as many examples for every input",
                "cut the arrays to the same length",
            )
        return cls(arrays, next(iter(counts.values())))

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of one example."""
        return [array.shape[1:] for array in self.arrays.values()]

    def first(self) -> _Examples:
        """The first example alone."""
        return _Examples({name: array[:1] for name, array in self.arrays.items()}, 1)

    def for_model(self, name: str, model: Any) -> Any:
        """The arrays in the structure that a model takes.

        Raises:
            ValueError: if its inputs have other names.
        """
        inputs = _inputs(model)
        if len(self.arrays) == 1 and len(inputs) <= 1:
            return next(iter(self.arrays.values()))
        arrays = _renamed(self.arrays, inputs)
        if inputs and set(inputs) != set(arrays):
            given = list(self.arrays) if "" not in self.arrays else "an array"
            raise problem(
                f"x with {given} for {name!r} with the inputs {inputs}",
                "an array for each input, by its name",
                "use the names of the inputs as keys",
            )
        structure = None if isinstance(model, TFLiteModel) else input_names(model)
        if isinstance(structure, list):
            return [arrays[each] for each in structure]
        return arrays


class _Test(NamedTuple):
    """What the outputs should be.

    Attributes:
        tasks: the task of each output.
        labels: the labels of each output that has some, as `labels_for` returns them.
        targets: the input that an output should reconstruct.
        groups: the query of each example.
    """

    tasks: dict[str, str]
    labels: dict[str, np.ndarray]
    targets: dict[str, np.ndarray]
    groups: np.ndarray | None

    @classmethod
    def of(
        cls,
        outputs: Outputs,
        y: Any,
        task: str | Mapping[str, str] | None,
        groups: Any,
        examples: _Examples,
    ) -> _Test:
        """Find the task of each output, and check the labels.

        Raises:
            ValueError: if they do not fit.
        """
        if isinstance(y, Mapping):
            y = next(iter(y.values())) if len(y) == len(outputs) == 1 else _renamed(y, outputs)
        given = labels_by_output(y, list(outputs), examples.count)
        chosen = _chosen_tasks(task, outputs, groups)
        tasks, labels, targets = {}, {}, {}
        for name, values in outputs.items():
            tasks[name] = chosen[name] or task_of(values, given.get(name), examples.shapes)
            if name in given:
                labels[name] = labels_for(tasks[name], given[name], values, name or "output")
            if tasks[name] == "reconstruction":
                targets[name] = _target(name, values, examples)
        return cls(tasks, labels, targets, _checked_groups(groups, tasks, outputs, examples.count))

    def answers(self, name: str, outputs: np.ndarray) -> Answers:
        """What a model gives for an output, beside what it should give."""
        return Answers(
            self.tasks[name],
            outputs,
            self.labels.get(name),
            self.targets.get(name),
            self.groups if self.tasks[name] == "ranking" else None,
        )


def _inputs(model: Any) -> list[str]:
    """The names of a model's inputs, without states; none where it does not tell."""
    if isinstance(model, TFLiteModel):
        return [tensor.name for tensor in model.inputs if tensor.name not in model.state_outputs]
    if not (is_keras_model(model) or is_tf_keras_model(model)):
        return []
    names = input_names(model)
    return [] if names is None else [names] if isinstance(names, str) else list(names)


def _renamed(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The values under those of the names that differ only in what is no letter or digit.

    A file has the input "acc_x" where the Keras model has "acc-x".
    """
    plain = {_plain(name): name for name in names}
    return {plain.get(_plain(name), name): value for name, value in values.items()}


def _plain(name: str) -> str:
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def _check_names(
    models: Mapping[str, Any], sources: Mapping[str, Any], baseline: str | None
) -> None:
    if not models:
        raise problem("no models", "at least one", "pass {'student': student}")
    for name, model in models.items():
        _check_model(name, model)
    if baseline is not None:
        check_choice("baseline", baseline, list(models))
    unknown = sorted(set(sources) - set(models))
    if unknown:
        raise problem(
            f"sources for {unknown}", "names of models", "use the same names in both mappings"
        )


def _check_model(name: str, model: Any) -> None:
    if not (isinstance(model, TFLiteModel) or is_keras_model(model) or is_tf_keras_model(model)):
        raise problem(
            f"{name!r} of type {type(model).__name__}",
            "a Keras model or a keras_kd.tflite.TFLiteModel",
            "load the model first",
            kind=TypeError,
        )


def _outputs(name: str, model: Any, examples: _Examples) -> Outputs:
    """What a model gives, by output name; the name of a single output is ""."""
    _check_model(name, model)
    x = examples.for_model(name, model)
    if isinstance(model, TFLiteModel):
        found = model.predict_stream(x) if model.state_outputs else model.predict_by_name(x)
    elif has_states(model):
        found = _streamed(name, model, x, examples.count)
    else:
        found = _predicted(name, model, x, examples.count)
        if isinstance(found, list | tuple):
            names = getattr(model, "output_names", None) or [f"output_{i}" for i in range(99)]
            found = dict(zip(names, found, strict=False))
    if not isinstance(found, Mapping):
        found = {"": found}
    arrays = {key: np.asarray(values) for key, values in found.items()}
    for key, values in arrays.items():
        if values.ndim == 0 or values.dtype.kind not in "biuf" or len(values) != examples.count:
            raise problem(
                f"an output {key!r} of {name!r} of shape {values.shape} and type "
                f"{values.dtype} for {examples.count} examples",
                "numbers for each example",
                "compare models that compute numbers from one batch of examples",
            )
        if not np.isfinite(values).all():
            raise problem(
                f"NaN or infinity in the output of {name!r}",
                "finite numbers",
                "check that the examples and the weights are finite",
            )
    return arrays if len(arrays) > 1 else {"": next(iter(arrays.values()))}


def _predicted(name: str, model: Any, x: Any, count: int) -> Any:
    """What the model predicts; a process that another one watches is watched batch by batch."""
    if not is_watched():
        return model.predict(x, batch_size=_BATCH_SIZE, verbose=0)
    parts = []
    for start in range(0, count, _BATCH_SIZE):
        with watched_batch(name, min(_BATCH_SIZE, count - start)):
            batch = _map(itemgetter(slice(start, start + _BATCH_SIZE)), x)
            parts.append(model.predict(batch, batch_size=_BATCH_SIZE, verbose=0))
    return _joined(parts)


def _streamed(name: str, model: Any, x: Any, count: int) -> Outputs:
    """What a model with `stateful=True` gives for each step of a stream, from zeros on."""
    signature = Signature(model)
    steps = signature.examples(x)
    parts = []
    for start in range(0, count, _BATCH_SIZE):
        with watched_batch(name, min(_BATCH_SIZE, count - start)):
            outputs = signature(_map(itemgetter(slice(start, start + _BATCH_SIZE)), steps))
        parts.append({key: np.asarray(value) for key, value in signature.own(outputs).items()})
    return _joined(parts)


def _map(function: Callable[[np.ndarray], Any], structure: Any) -> Any:
    if isinstance(structure, Mapping):
        return {key: _map(function, value) for key, value in structure.items()}
    if isinstance(structure, list | tuple):
        return [_map(function, value) for value in structure]
    return function(structure)


def _joined(parts: list[Any]) -> Any:
    """Batches of the same structure, one after the other."""
    if isinstance(parts[0], Mapping):
        return {key: _joined([part[key] for part in parts]) for key in parts[0]}
    if isinstance(parts[0], list | tuple):
        return [_joined(list(each)) for each in zip(*parts, strict=True)]
    return np.concatenate(parts)


def _check_outputs(outputs: Mapping[str, Outputs]) -> None:
    (first, wanted), *others = (
        (name, {key: values.shape for key, values in found.items()})
        for name, found in outputs.items()
    )
    for name, shapes in others:
        if shapes != wanted:
            received, expected = (
                each[""] if list(each) == [""] else each for each in (shapes, wanted)
            )
            raise problem(
                f"outputs {received} of {name!r}",
                f"{expected}, as {first!r} gives",
                "compare models with the same outputs",
            )


def _chosen_tasks(
    task: str | Mapping[str, str] | None, outputs: Outputs, groups: Any
) -> dict[str, str | None]:
    if task is None and groups is not None:
        task = "ranking"
    if not isinstance(task, Mapping):
        task = dict.fromkeys(outputs, task)
    task = _renamed(task, outputs)
    unknown = sorted(set(task) - set(outputs))
    if unknown:
        raise problem(
            f"tasks for the outputs {unknown}",
            f"some of {list(outputs)}",
            "use the names of the outputs as keys",
        )
    for each in task.values():
        if each is not None:
            check_choice("task", each, TASKS)
    return {name: task.get(name) for name in outputs}


def _target(name: str, values: np.ndarray, examples: _Examples) -> np.ndarray:
    for array in examples.arrays.values():
        if array.shape == values.shape:
            return array
    raise problem(
        f"the task reconstruction for an output{f' {name!r}' if name else ''} of shape "
        f"{values.shape}",
        f"the shape of an input, one of {[a.shape for a in examples.arrays.values()]}",
        "name another task, or leave it out",
    )


def _checked_groups(
    groups: Any, tasks: Mapping[str, str], outputs: Outputs, count: int
) -> np.ndarray | None:
    ranked = [name for name, task in tasks.items() if task == "ranking"]
    if groups is None:
        for name in ranked:
            shape = outputs[name].shape
            if len(shape) != 2 or shape[1] < 2:
                raise problem(
                    f"a ranking of outputs of shape {shape} without groups",
                    "the query of each example, or a row of scores for each query",
                    "pass groups=query_ids, shaped (examples,)",
                )
        return None
    groups = np.asarray(groups)
    if not ranked:
        raise problem(
            f"groups for the task {', '.join(map(repr, tasks.values()))}",
            "the task 'ranking'",
            "leave groups out, or pass task='ranking'",
        )
    sizes = {int(np.prod(outputs[name].shape)) for name in ranked}
    if groups.shape != (count,) or sizes != {count}:
        raise problem(
            f"groups of shape {groups.shape} for {count} examples with outputs of shape "
            f"{[outputs[name].shape for name in ranked]}",
            "one group and one score for each example",
            "pass the number of its query for each example",
        )
    return groups


def _quality(
    outputs: Mapping[str, Outputs], taught: Outputs | None, test: _Test, baseline: str
) -> tuple[dict[str, dict[str, Estimate]], dict[str, dict[str, Answers]]]:
    """The estimates of each model by measure, and what they were computed from."""
    answers = {
        model: {name: test.answers(name, values) for name, values in found.items()}
        for model, found in outputs.items()
    }
    quality: dict[str, dict[str, Estimate]] = {model: {} for model in outputs}

    def add(key: str, found: dict[str, Statistic | None], base: str | None, units: int) -> None:
        known = {model: value for model, value in found.items() if value is not None}
        for model, result in estimate(known, base, units).items():
            quality[model][key] = result

    for output, task in test.tasks.items():
        each = {model: found[output] for model, found in answers.items()}
        first = next(iter(each.values()))
        for measure in first.measures:
            found = {model: measure.of(one) for model, one in each.items()}
            add(measure_key(output, measure.name), found, baseline, first.units)
        if taught is not None:
            teacher = test.answers(output, taught[output])
            for measure in OF_TEACHER[task]:
                found = {model: measure.of(one, teacher) for model, one in each.items()}
                add(measure_key(output, measure.name), found, None, first.units)
    return quality, answers


def _details(answers: Mapping[str, Answers]) -> dict[str, Any]:
    """What is known of single classes, of models with one output."""
    if len(answers) > 1:
        return {}
    (one,) = answers.values()
    if one.labels is None or one.task not in CLASSIFYING or one.outputs.dtype.kind != "f":
        return {}
    if _columns(one) > MOST_CLASSES:
        return {}
    if one.task == "multilabel":
        return {"per_class": per_class(one)}
    return {
        "per_class": per_class(one),
        "confusion": confusion(one),
        "reliability": tuple(reliability(one)) or None,
    }


def _disagreements(
    first: Mapping[str, Answers], second: Mapping[str, Answers]
) -> tuple[Disagreement, ...]:
    """Where two classifiers with one output and one choice for each example differ."""
    if len(first) > 1:
        return ()
    (one,), (other,) = first.values(), second.values()
    chances = one.probabilities
    if one.task != "classification" or chances is None or chances.ndim != 2:
        return ()
    differ = np.flatnonzero(one.decided != other.decided)
    surest = differ[np.argsort(-chances[differ].max(axis=-1), kind="stable")]
    return tuple(
        Disagreement(
            int(example),
            None if one.labels is None else int(one.labels[example]),
            int(one.decided[example]),
            int(other.decided[example]),
        )
        for example in surest[:_MOST_PICTURES]
    )


def _columns(answers: Answers) -> int:
    """How many classes or labels there are."""
    return answers.outputs.shape[-1] if answers.task == "multilabel" else answers.classes


def _class_names(names: Sequence[str], answers: Mapping[str, Answers]) -> tuple[str, ...]:
    one = next(iter(answers.values()))
    if len(answers) > 1 or one.task not in CLASSIFYING:
        if names:
            raise problem(
                f"{len(names)} names of classes for "
                + (f"the task {one.task!r}" if len(answers) == 1 else "several outputs"),
                "a classifier with one output",
                "leave class_names out",
            )
        return ()
    classes = _columns(one)
    if not names:
        return tuple(map(str, range(classes))) if classes <= MOST_CLASSES else ()
    if len(names) != classes and one.outputs.dtype.kind == "f":
        raise problem(
            f"{len(names)} names of classes for outputs of {classes} classes",
            "a name for each class",
            "pass as many class_names as there are classes",
        )
    return tuple(names)


def _weights(source: Any) -> dict[str, Any]:
    if isinstance(source, TFLiteModel):
        return {}
    can_be_pruned = any(True for _ in prunable_weights(source))
    return {
        "parameters": int(source.count_params()),
        "sparsity": sparsity(source).overall if can_be_pruned else None,
    }


def _file(model: Any, example: _Examples) -> dict[str, Any]:
    if not isinstance(model, TFLiteModel):
        return {}
    x = example.for_model("", model)
    return {
        "bytes": model.size,
        "compressed_bytes": model.compressed_size,
        "latency_microseconds": model.benchmark(
            threads=1, kernels="xnnpack", x=x, memory=False
        ).median,
        "arena_bytes": _arena_bytes(model, x),
    }


def _arena_bytes(model: TFLiteModel, example: Any) -> int | None:
    if not microcontroller.is_installed():
        return None
    try:
        return microcontroller.run(model, example).arena_bytes
    except ValueError:
        # TFLM refuses what is made for phones only, hybrid operators for one: no arena then.
        return None
