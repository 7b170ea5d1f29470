"""Measuring several models on the same test examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from keras_kd._checks import check_choice, problem
from keras_kd.compression.report import sparsity_of
from keras_kd.data.in_memory import is_dataset, to_arrays
from keras_kd.evaluation.comparison import Comparison, Disagreement, Measurement, measure_key
from keras_kd.evaluation.machine import machine
from keras_kd.evaluation.outputs import (
    Examples,
    Outputs,
    check_model,
    check_same_outputs,
    outputs_of,
    renamed,
)
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
from keras_kd.metrics.measures import measures_of
from keras_kd.metrics.statistics import confusion, per_class, reliability
from keras_kd.metrics.tasks import CLASSIFYING, check_outputs
from keras_kd.tflite import TFLiteModel, microcontroller

# The key in `models` of the model that the others agree with, if no other is named.
_TEACHER = "teacher"
# More would make the page and the file of the numbers too long to read.
MOST_CLASSES = 40
_MOST_PICTURES = 12


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

    The measures depend on the task of each output (`keras_kd.metrics.MEASURES`), which follows
    from the outputs of the first model and from the labels (`keras_kd.metrics.task_of`). Each
    number has an interval of 95 % confidence, and so has its difference to the baseline, which is
    computed on pairs: both models ran the same examples (`keras_kd.metrics.estimate`).

    Args:
        models: a Keras model or a `keras_kd.tflite.TFLiteModel` for each name. All have the same
            outputs.
        x: test examples: an array shaped (examples, ...); with several inputs a dict by input name,
            or a list in the order of a Keras model among `models`; or a dataset of batches (x, y),
            which is read into memory (see `keras_kd.data.to_arrays`), without `y`.
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
        check_model(_TEACHER, teacher)
    if is_dataset(x):
        if y is not None:
            raise problem(
                f"x of type {type(x).__name__} and y",
                "a dataset of batches (x, y) alone, or arrays x and y",
                "leave y out",
            )
        x, y = to_arrays(x, name="x")
    examples = Examples.of(x, models.values())
    # As many as there are examples, and finite: what can be checked before a model runs.
    labels_by_output(y, list(y) if isinstance(y, Mapping) else ["output"], examples.count)
    outputs: dict[str, Outputs] = {}
    for model_name, model in models.items():
        found = outputs_of(model_name, model, examples)
        if not outputs:
            test = _Test.of(found, y, task, groups, examples)
            names = _class_names(
                class_names, {each: test.answers(each, values) for each, values in found.items()}
            )
        outputs[model_name] = renamed(found, test.tasks)
        check_same_outputs(outputs)
        if on_measured is not None:
            on_measured(model_name)
    teacher_name = next((key for key, model in models.items() if model is teacher), None)
    taught = None
    if teacher is not None:
        taught = outputs[teacher_name] if teacher_name else outputs_of(_TEACHER, teacher, examples)
        taught = renamed(taught, test.tasks)
        check_same_outputs({**outputs, "the teacher": taught})
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


class _Test(NamedTuple):
    """What the outputs should be.

    Attributes:
        tasks: the task of each output.
        y: the labels of each output that has some, as `labels_for` returns them.
        targets: the input that an output should reconstruct.
        groups: the query of each example.
    """

    tasks: dict[str, str]
    y: dict[str, np.ndarray]
    targets: dict[str, np.ndarray]
    groups: np.ndarray | None

    @classmethod
    def of(
        cls,
        outputs: Outputs,
        y: Any,
        task: str | Mapping[str, str] | None,
        groups: Any,
        examples: Examples,
    ) -> _Test:
        """Find the task of each output, and check the labels.

        Raises:
            ValueError: if they do not fit.
        """
        if isinstance(y, Mapping):
            y = next(iter(y.values())) if len(y) == len(outputs) == 1 else renamed(y, outputs)
        given = labels_by_output(y, list(outputs), examples.count)
        chosen = _chosen_tasks(task, outputs, groups)
        tasks, y, targets = {}, {}, {}
        for name, values in outputs.items():
            tasks[name] = chosen[name] or task_of(values, given.get(name), examples.shapes)
            if name in given:
                y[name] = labels_for(tasks[name], given[name], values, name or "output")
            if tasks[name] == "reconstruction":
                targets[name] = _target(name, values, examples)
        return cls(tasks, y, targets, _checked_groups(groups, tasks, outputs, examples.count))

    def answers(self, name: str, outputs: np.ndarray) -> Answers:
        """A model's values of an output beside the expected ones."""
        return Answers(
            self.tasks[name],
            outputs,
            self.y.get(name),
            self.targets.get(name),
            self.groups if self.tasks[name] == "ranking" else None,
        )


def _check_names(
    models: Mapping[str, Any], sources: Mapping[str, Any], baseline: str | None
) -> None:
    if not models:
        raise problem("no models", "at least one", "pass {'student': student}")
    for name, model in models.items():
        check_model(name, model)
    if baseline is not None:
        check_choice("baseline", baseline, list(models))
    unknown = sorted(set(sources) - set(models))
    if unknown:
        raise problem(
            f"sources for {unknown}", "names of models", "use the same names in both mappings"
        )


def _chosen_tasks(
    task: str | Mapping[str, str] | None, outputs: Outputs, groups: Any
) -> dict[str, str | None]:
    if task is None and groups is not None:
        task = "ranking"
    given = task if isinstance(task, Mapping) else dict.fromkeys(outputs, task)
    chosen = renamed(given, outputs)
    check_outputs("tasks", chosen, outputs)
    for each in chosen.values():
        if each is not None:
            check_choice("task", each, TASKS)
    return {name: chosen.get(name) for name in outputs}


def _target(name: str, values: np.ndarray, examples: Examples) -> np.ndarray:
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
        for measure in measures_of(first):
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
    if one.y is None or one.task not in CLASSIFYING or one.outputs.dtype.kind != "f":
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
            None if one.y is None else int(one.y[example]),
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
    return {"parameters": int(source.count_params()), "sparsity": sparsity_of(source)}


def _file(model: Any, example: Examples) -> dict[str, Any]:
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
