"""`keras-kd report`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from keras_kd._checks import problem
from keras_kd.cli.arguments import (
    add_custom_objects,
    add_json,
    check_custom_objects,
    check_data,
    check_models,
    examples,
    labels,
    load_model,
)
from keras_kd.cli.terminal import Outcome, working

PAGE = "report.html"
NUMBERS = "results.json"


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "report",
        help="measure several models and write a page about them",
        description="Run several .tflite files and Keras models on the same test data and write a "
        f"page with what they get right, their sizes and their times ({PAGE}), and the numbers "
        f"({NUMBERS}). What is measured follows from the outputs and the labels: accuracy, F1 and "
        "calibration of a classifier, errors of a regression, how well an autoencoder tells "
        "anomalies. Each number has its interval of 95 %%.",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.tflite|MODEL")
    parser.add_argument(
        "--data",
        required=True,
        metavar="DATA.npy|DATA.npz",
        help="test examples, scaled as in training; .npz: an array for each input",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="LABELS.npy|LABELS.npz",
        help="for each example the class, the labels (0 or 1), the targets, or 1 for an anomaly; "
        ".npz: an array for each output",
    )
    parser.add_argument(
        "--task",
        choices=("classification", "multilabel", "ranking", "regression", "reconstruction"),
        help="the task, where outputs and labels do not show it; a ranking must be named",
    )
    parser.add_argument(
        "--groups",
        metavar="GROUPS.npy",
        help="for a ranking of single scores: the number of its query for each example",
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
    parser.add_argument(
        "--baseline",
        type=Path,
        metavar="FILE.tflite|MODEL",
        help="the file that the others are compared with (default: the first)",
    )
    parser.add_argument("--title", help="the heading of the page")
    add_custom_objects(parser)
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Outcome:
    files, names = arguments.files, _names(arguments.files)
    baseline = None
    if arguments.baseline is not None:
        baseline = names[_place("--baseline", arguments.baseline, files)]

    from keras_kd._files import check_output, filling
    from keras_kd.tflite.android import read_class_names

    check_output(arguments.output)
    check_models(*arguments.files, arguments.teacher)
    check_custom_objects(arguments.custom_objects)
    check_data(arguments.data, arguments.labels, arguments.groups)
    if arguments.class_names is not None:
        read_class_names(arguments.class_names)
    with working("reading the examples") as say:
        x, y = examples(arguments.data), labels(arguments.labels)
        groups = labels(arguments.groups and Path(arguments.groups))
        from keras_kd.evaluation import compare, save_report
        from keras_kd.evaluation.extra import check_report_extra

        check_report_extra()
        say("loading the models")
        models = {
            name: _load(file, arguments.custom_objects)
            for name, file in zip(names, files, strict=True)
        }
        teacher = None
        if arguments.teacher in files:
            teacher = names[files.index(arguments.teacher)]
        elif arguments.teacher is not None:
            teacher = _load(arguments.teacher, arguments.custom_objects)
        say(f"running {len(models)} models")
        comparison = compare(
            models,
            x,
            y,
            task=arguments.task,
            teacher=teacher,
            baseline=baseline,
            groups=groups,
            class_names=_class_names(arguments.class_names),
            name=Path(arguments.data).stem,
            on_measured=lambda name: say(f"{name} was run, of {len(models)} models"),
        )
        say("writing")
        with filling(arguments.output) as directory:
            comparison.save_json(directory / NUMBERS)
            save_report(comparison, directory / PAGE, title=arguments.title, x=x)
    files = [str(arguments.output / name) for name in (PAGE, NUMBERS)]
    return Outcome(
        "\n".join([str(comparison), "", "Written:", *(f"  {file}" for file in files)]),
        {"files": files, **comparison.to_dict()},
    )


def _load(path: Path, custom_objects: str | None) -> Any:
    from keras_kd.tflite import TFLiteModel

    if path.suffix == ".tflite":
        return TFLiteModel.load(path)
    return load_model(path, custom_objects)


def _names(files: list[Path]) -> list[str]:
    """What the files are called in the table: as short as is unique."""
    if len(set(files)) != len(files):
        raise problem("a file that is named twice", "files that differ", "name each one once")
    for names in ([file.stem for file in files], [file.name for file in files]):
        if len(set(names)) == len(names):
            return names
    return [str(file) for file in files]


def _place(option: str, file: Path, files: list[Path]) -> int:
    if file not in files:
        raise problem(
            f"{option} {str(file)!r}",
            f"one of the files, {', '.join(repr(str(each)) for each in files)}",
            "name the file among the others, too",
        )
    return files.index(file)


def _class_names(path: Path | None) -> tuple[str, ...]:
    from keras_kd.tflite import android

    return () if path is None else android.read_class_names(path)
