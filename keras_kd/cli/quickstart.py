"""`keras-kd quickstart`."""

from __future__ import annotations

import argparse
from pathlib import Path

from keras_kd._checks import problem
from keras_kd.cli.arguments import add_seed, whole_number


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "quickstart",
        help="distill, prune, quantize and convert a digit classifier; write a report",
        description="Train a teacher and students on real digits, prune and quantize them while "
        "they are taught, convert them to .tflite, measure each file and write a report. Takes a "
        "few minutes.",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("quickstart-results"),
        metavar="DIR",
        help="directory for the results (default: %(default)s)",
    )
    add_seed(parser, "same seed, same table")
    parser.add_argument(
        "--epochs",
        type=whole_number(1, usual=6),
        default=6,
        help="of the teacher and of each first training (default: %(default)s)",
    )
    parser.add_argument(
        "--dataset",
        choices=("mnist", "fashion_mnist"),
        help="a whole data set, through tensorflow-datasets: five times the images and the time "
        "(default: the bundled sample of MNIST)",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="where tensorflow-datasets keeps it (default: TFDS_DATA_DIR)",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from keras_kd._files import check_output
    from keras_kd.data.named import check_directory

    check_output(arguments.output)
    if arguments.data_dir is not None and arguments.dataset is None:
        raise problem(
            f"--data-dir {arguments.data_dir} without a data set",
            "--dataset mnist or --dataset fashion_mnist",
            "name the data set to use, or leave --data-dir out for the bundled sample",
        )
    if arguments.data_dir is not None:
        check_directory(arguments.dataset, arguments.data_dir)
    from keras_kd import quickstart

    quickstart.run(
        quickstart.Settings(
            output=arguments.output,
            seed=arguments.seed,
            epochs=arguments.epochs,
            dataset=arguments.dataset,
            data_dir=arguments.data_dir,
        )
    )
