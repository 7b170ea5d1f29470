"""`keras-kd fit`."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from keras_kd._checks import problem
from keras_kd.cli.arguments import (
    MODEL,
    add_custom_objects,
    add_json,
    add_seed,
    add_target,
    check_custom_objects,
    check_data,
    check_models,
    load_model,
    real_number,
    whole_number,
)
from keras_kd.cli.terminal import Outcome, working

_X, _Y = "x", "y"
_REPORT = "report.html"
_SEARCH = "search"


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "fit",
        help="find the best student of a teacher that fits a device",
        description="Make smaller students of a teacher, train those that fit a device on the "
        "teacher's outputs, and write the best one as a verified file. Whether a student fits is "
        "read from its real file before it is trained. If it is interrupted, the same command "
        "resumes where it stopped.",
    )
    parser.add_argument("teacher", type=Path, metavar=MODEL)
    parser.add_argument(
        "--data",
        required=True,
        metavar="TRAIN.npz",
        help="training data: the arrays 'x' and 'y'; with several inputs, 'y' and an array for "
        "each input",
    )
    parser.add_argument(
        "--validation",
        required=True,
        metavar="VALIDATION.npz",
        help="examples by which students are compared, likewise",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="directory for the student, its file, its firmware and the report; what was done is "
        "kept in it",
    )
    _add_device(parser)
    _add_search(parser)
    add_custom_objects(parser)
    add_json(parser)
    parser.set_defaults(run=_run)


def _add_device(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the device")
    group.add_argument("--device", metavar="NAME", help="a known one, such as cortex-m4-256k")
    group.add_argument(
        "--flash", metavar="SIZE", help="of a microcontroller, for example 64KB; else of the file"
    )
    group.add_argument("--ram", metavar="SIZE", help="of a microcontroller, for example 32KB")
    group.add_argument(
        "--latency",
        type=real_number(above=0),
        metavar="MS",
        help="milliseconds for one example on this computer, for android and web",
    )
    add_target(group, "microcontroller", is_set=False)
    group.add_argument(
        "--kernels",
        choices=("reference", "cmsis_nn", "unknown"),
        help="whose kernels the firmware links; unknown: the model alone counts against the flash "
        "(default: reference)",
    )
    group.add_argument(
        "--compressed",
        action="store_true",
        default=None,
        help="compare --flash with the file after gzip, as for a download, and prune the student; "
        "for android and web",
    )


def _add_search(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the search")
    group.add_argument(
        "--keep",
        type=real_number(above=0, at_most=1),
        metavar="SHARE",
        help="the goal, as a share of the teacher's accuracy (default: 0.99)",
    )
    group.add_argument("--metric", metavar="NAME", help="what is compared (default: by the task)")
    group.add_argument(
        "--goal", type=real_number(), metavar="VALUE", help="what the metric should reach"
    )
    group.add_argument(
        "--trials",
        type=whole_number(1, usual=12),
        default=12,
        help="how many students are trained (default: %(default)s)",
    )
    group.add_argument(
        "--epochs",
        type=whole_number(1, usual=9),
        default=9,
        help="of a finalist (default: %(default)s)",
    )
    group.add_argument(
        "--finalists",
        type=whole_number(1, usual=2),
        default=2,
        help="how many are trained to the end (default: %(default)s)",
    )
    group.add_argument(
        "--max-minutes", type=real_number(above=0), metavar="MINUTES", help="when the search ends"
    )
    add_seed(group)


def _run(arguments: argparse.Namespace) -> Outcome:
    from keras_kd._files import check_output

    device = _device(arguments)
    check_output(arguments.output)
    check_models(arguments.teacher)
    check_custom_objects(arguments.custom_objects)
    check_data(arguments.data, arguments.validation)
    with working("reading the examples"):
        train = _pair("--data", arguments.data)
        validation = _pair("--validation", arguments.validation)
    from keras_kd.search import fit_to_device

    with working("loading the model"):
        teacher = load_model(arguments.teacher, arguments.custom_objects)
    # Standard output holds the result alone.
    with redirect_stdout(sys.stderr):
        result = fit_to_device(
            teacher,
            train,
            validation_data=validation,
            device=device,
            keep=arguments.keep,
            metric=arguments.metric,
            goal=arguments.goal,
            trials=arguments.trials,
            directory=arguments.output / _SEARCH,
            max_minutes=arguments.max_minutes,
            epochs=arguments.epochs,
            finalists=arguments.finalists,
            seed=arguments.seed,
        )
    files = [str(path) for path in result.save(arguments.output)]
    files += _report(result, arguments.output / _REPORT)
    return Outcome(
        "\n".join([str(result), "", "Written:", *(f"  {file}" for file in files)]),
        {"files": files, **result.to_dict()},
    )


def _device(arguments: argparse.Namespace) -> Any:
    """The device, from its name or its limits."""
    from keras_kd import devices

    limits = {
        name: getattr(arguments, name)
        for name in ("flash", "ram", "latency", "target", "kernels", "compressed")
        if getattr(arguments, name) is not None
    }
    if arguments.device is not None:
        if limits:
            given = ", ".join(f"--{name}" for name in limits)
            raise problem(
                f"--device {arguments.device} with {given}",
                "a device by its name, or by its limits",
                "leave one of them out",
            )
        return devices.get(arguments.device)
    if limits.get("kernels") == "unknown":
        limits["kernels"] = None
    return devices.Device(**limits)


def _pair(option: str, path: str) -> tuple[Any, Any]:
    from keras_kd.data import load_examples

    arrays = load_examples(path)
    if not isinstance(arrays, dict) or _Y not in arrays or len(arrays) < 2:
        held = f"the arrays {sorted(arrays)}" if isinstance(arrays, dict) else "one array"
        raise problem(
            f"{option} {path!r} with {held}",
            "a .npz with the arrays 'x' and 'y', or 'y' and an array for each input",
            "write it with numpy.savez(path, x=x_train, y=y_train)",
        )
    inputs = {name: array for name, array in arrays.items() if name != _Y}
    return (inputs[_X] if list(inputs) == [_X] else inputs), arrays[_Y]


def _report(result: Any, path: Path) -> list[str]:
    """Write the page, where what it needs is installed."""
    from keras_kd.evaluation.extra import check_report_extra

    try:
        check_report_extra()
    except ModuleNotFoundError:
        return []
    return [str(result.report(path))]
