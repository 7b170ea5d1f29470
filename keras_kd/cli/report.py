"""`keras-kd report`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_kd._checks import problem
from keras_kd.cli.arguments import (
    add_custom_objects,
    add_json,
    check_custom_objects,
    check_data,
    check_models,
    labels,
    load_model,
)
from keras_kd.cli.terminal import Outcome, working

if TYPE_CHECKING:
    import numpy as np

    from keras_kd.data import Dataset

PAGE = "report.html"
NUMBERS = "results.json"
# More than any page could show; a damaged file may say that it has two billion.
_MOST_CLASSES = 100_000


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "report",
        help="measure several models and write a page about them",
        description="Run several .tflite files and Keras models on the same test data and write a "
        f"page with what they get right, their sizes and their times ({PAGE}), and the numbers "
        f"({NUMBERS}). The first file is the one that others are compared with.",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.tflite|MODEL")
    parser.add_argument(
        "--data", required=True, metavar="DATA.npy", help="test examples, scaled as in training"
    )
    parser.add_argument(
        "--labels",
        type=Path,
        required=True,
        metavar="LABELS.npy",
        help="the class of each example",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("report"),
        metavar="DIR",
        help="directory for the results (default: %(default)s)",
    )
    parser.add_argument(
        "--class-names",
        type=Path,
        metavar="LABELS.txt",
        help="the name of each class, one on a line",
    )
    parser.add_argument(
        "--teacher",
        type=Path,
        metavar="FILE.tflite|MODEL",
        help="the model whose choices the others should make",
    )
    add_custom_objects(parser)
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Outcome:
    from keras_kd._files import check_output, filling
    from keras_kd.data import load_examples
    from keras_kd.tflite.android import read_labels

    check_output(arguments.output)
    check_models(*arguments.files, arguments.teacher)
    check_custom_objects(arguments.custom_objects)
    check_data(arguments.data, arguments.labels)
    names = _names(arguments.files)
    if arguments.class_names is not None:
        read_labels(arguments.class_names)
    with working("reading the examples") as say:
        examples, classes = load_examples(arguments.data), labels(arguments.labels)
        from keras_kd.evaluation import compare
        from keras_kd.evaluation.extra import check_report_extra

        check_report_extra()
        say("loading the models")
        models = {
            name: _load(file, arguments.custom_objects)
            for name, file in zip(names, arguments.files, strict=True)
        }
        teacher = arguments.teacher and _load(arguments.teacher, arguments.custom_objects)
        dataset = _dataset(arguments, examples, classes, models[names[0]])
        say(f"running {len(models)} models")
        comparison = compare(
            models,
            dataset,
            teacher=teacher,
            on_measured=lambda row: say(f"{row.name} is measured, of {len(models)} models"),
        )
        say("writing")
        with filling(arguments.output) as directory:
            comparison.save_json(directory / NUMBERS)
            comparison.save_report(directory / PAGE)
    files = [str(arguments.output / name) for name in (PAGE, NUMBERS)]
    return Outcome(
        "\n".join([str(comparison), "Written:", *(f"  {file}" for file in files)]),
        {"files": files, **comparison.to_dict()},
    )


def _load(path: Path, custom_objects: str | None) -> Any:
    from keras_kd.tflite import TFLiteModel

    if path.suffix == ".tflite":
        return TFLiteModel.load(path)
    return load_model(path, custom_objects)


def _names(files: list[Path]) -> list[str]:
    """What the files are called in the table: as short as they can be told apart."""
    if len(set(files)) != len(files):
        raise ValueError(
            problem("a file that is named twice", "files that differ", "name each one once")
        )
    for names in ([file.stem for file in files], [file.name for file in files]):
        if len(set(names)) == len(names):
            return names
    return [str(file) for file in files]


def _dataset(
    arguments: argparse.Namespace, examples: Any, classes: np.ndarray, model: Any
) -> Dataset:
    from keras_kd.data import Dataset
    from keras_kd.tflite import TFLiteModel, android

    if isinstance(examples, dict):
        if len(examples) > 1:
            raise ValueError(
                problem(
                    f"examples for the inputs {sorted(examples)} in {arguments.data!r}",
                    "one array: a report is about classifiers with one input",
                    "save the examples with numpy.save",
                )
            )
        (examples,) = examples.values()
    if arguments.class_names:
        names = android.read_labels(arguments.class_names)
    else:
        is_file = isinstance(model, TFLiteModel)
        shape = model.outputs[0].shape if is_file else model.output_shape
        names = _numbers(int(shape[-1]))
    return Dataset(
        name=Path(arguments.data).stem,
        x_train=examples[:0],
        y_train=classes[:0],
        x_test=examples,
        y_test=classes,
        class_names=names,
    )


def _numbers(classes: int) -> tuple[str, ...]:
    """Classes without names go by their numbers."""
    if classes > _MOST_CLASSES:
        raise ValueError(
            problem(
                f"a first file with {classes} scores for an example",
                f"a classifier of at most {_MOST_CLASSES} classes",
                "check the file with keras-kd inspect",
            )
        )
    return tuple(map(str, range(classes)))
