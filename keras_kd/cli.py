"""The command `keras-kd`: what a person types becomes a call, and its result a print."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from keras_kd._checks import one_line, problem
from keras_kd._version import __version__

if TYPE_CHECKING:
    from keras_kd import tflite

PROGRAM = "keras-kd"
# What the shell reports for a program that was ended by Ctrl-C.
INTERRUPTED = 128 + signal.SIGINT
# And for one whose output nobody reads any more. Windows has no signal of that name.
BROKEN_PIPE = 128 + 13
BAD_INPUT = 2
_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage around it."""

    def error(self, message: str) -> None:
        self.exit(BAD_INPUT, f"{PROGRAM}: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments after the program's name; None: those of this process.

    Returns:
        The exit code: 0, 2 on bad input, 130 after Ctrl-C, 141 if nobody reads the output.
    """
    try:
        arguments = _parser().parse_args(argv)
        with _without_native_messages():
            arguments.run(arguments)
        sys.stdout.flush()
    except SystemExit as exit_:  # argparse ends so, after --help and after bad options.
        return int(exit_.code or 0)
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever reads, such as `head`, has seen enough; nor is there anyone to flush to at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
        print(f"{PROGRAM}: error: {one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    return 0


@contextmanager
def _without_native_messages() -> Iterator[None]:
    """Keep from the terminal what TensorFlow's C++ writes to file descriptor 2.

    Python's own standard error stays. Who has set TensorFlow's log level sees what they asked for.
    """
    if _LOG_LEVEL in os.environ:
        yield
        return
    os.environ[_LOG_LEVEL] = "3"
    sys.stderr.flush()
    python_stderr, original = sys.stderr, os.dup(2)
    with open(os.devnull, "w") as nowhere, os.fdopen(os.dup(2), "w", buffering=1) as kept:
        os.dup2(nowhere.fileno(), 2)
        sys.stderr = kept
        try:
            yield
        finally:
            sys.stderr = python_stderr
            os.dup2(original, 2)
            os.close(original)
            del os.environ[_LOG_LEVEL]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="Knowledge distillation for Keras: from a teacher to a verified student on a "
        "device.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_quickstart(commands)
    _add_convert(commands)
    _add_inspect(commands)
    _add_benchmark(commands)
    return parser


def _add_quickstart(commands: argparse._SubParsersAction) -> None:
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
    parser.add_argument(
        "--seed", type=int, default=0, help="same seed, same table (default: %(default)s)"
    )
    parser.add_argument(
        "--epochs",
        type=int,
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
    parser.set_defaults(run=_quickstart)


def _add_convert(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "convert",
        help="convert a Keras model to .tflite and check the result",
        description="Convert a model saved by Keras 3 to .tflite and check the result.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL.keras")
    parser.add_argument(
        "--quantization",
        choices=("float32", "float16", "dynamic_int8", "int8"),
        default="float32",
        help="how numbers are stored (default: %(default)s)",
    )
    parser.add_argument(
        "--target",
        choices=("android", "microcontroller"),
        default="android",
        help="where the file will run (default: %(default)s)",
    )
    parser.add_argument(
        "--representative-data",
        type=Path,
        metavar="DATA.npy",
        help="examples of the model's inputs, for int8; .npy, or .npz with an array per input",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE.tflite|DIR",
        help="a file, or a directory, which with --target microcontroller also gets C source "
        "(default: MODEL.tflite)",
    )
    parser.set_defaults(run=_convert)


def _add_inspect(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "inspect",
        help="show what is in a .tflite",
        description="Show the size, inputs, outputs and operators of a .tflite.",
    )
    parser.add_argument("file", type=Path, metavar="FILE.tflite")
    parser.set_defaults(run=_inspect)


def _add_benchmark(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "benchmark",
        help="measure how fast .tflite files run here",
        description="Measure how long .tflite files take for one example in LiteRT on this CPU.",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.tflite")
    parser.add_argument(
        "--runs", type=int, default=200, help="measured runs (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument(
        "--kernels",
        choices=("xnnpack", "builtin"),
        default="xnnpack",
        help="those of phones, or those that microcontrollers share (default: %(default)s)",
    )
    parser.set_defaults(run=_benchmark)


def _quickstart(arguments: argparse.Namespace) -> None:
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


def _convert(arguments: argparse.Namespace) -> None:
    from keras_kd import tflite
    from keras_kd._model_files import load_model
    from keras_kd.data import load_examples

    beside = arguments.model.parent / f"{arguments.model.stem}.tflite"
    output = arguments.output or beside
    file = output / beside.name if output.is_dir() else output
    if arguments.output:
        _check_tflite(file)
    data = arguments.representative_data
    model = tflite.convert(
        load_model(arguments.model),
        arguments.quantization,
        None if data is None else load_examples(data),
        target=arguments.target,
    )
    written = []
    if output.is_dir() and arguments.target == "microcontroller":
        written += tflite.write_c_source(model, output)
    written.append(model.save(file))
    _print_contents(model)
    print("Written:", *written, sep="\n  ")


def _check_tflite(file: Path) -> None:
    """Refuse names of which a slip could replace the model or the data by what is made of them."""
    if file.suffix != ".tflite":
        raise ValueError(
            problem(
                f"--output {str(file)!r}",
                "a file that ends in .tflite, or a directory that is there",
                f"add .tflite, or make the directory first: mkdir -p {file}",
            )
        )


def _inspect(arguments: argparse.Namespace) -> None:
    from keras_kd import tflite

    _print_contents(tflite.TFLiteModel.load(arguments.file))


def _benchmark(arguments: argparse.Namespace) -> None:
    from keras_kd import tflite

    models = [tflite.TFLiteModel.load(file) for file in arguments.files]
    latencies = [
        model.benchmark(arguments.runs, arguments.threads, arguments.kernels) for model in models
    ]
    print(f"{'median':>10} {'mean':>10} {'95 %':>10}  microseconds per example")
    for file, latency in zip(arguments.files, latencies, strict=True):
        print(f"{latency.median:10.1f} {latency.mean:10.1f} {latency.p95:10.1f}  {file}")


def _print_contents(model: tflite.TFLiteModel) -> None:
    print(f"Size: {model.size:,} bytes, {model.compressed_size:,} after gzip")
    for heading, tensors in (("Inputs", model.inputs), ("Outputs", model.outputs)):
        print(f"{heading}:", *tensors, sep="\n  ")
    print("Operators:", *(f"{count:4} {name}" for name, count in model.operators.items()), sep="\n")
