"""`keras-kd store`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_kd._checks import problem
from keras_kd._files import check_output, is_database
from keras_kd.cli.arguments import (
    MODEL,
    add_custom_objects,
    add_json,
    check_custom_objects,
    check_data,
    check_models,
    load_model,
    real_number,
    whole_number,
)
from keras_kd.cli.terminal import Outcome, working

if TYPE_CHECKING:
    import numpy as np

# The entry of a student's data that will be the key.
_KEY = "key"


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "store",
        help="store a teacher's outputs once, so that students learn without it",
        description="Run a teacher once over its data and store its outputs, or store "
        "the predictions of a teacher that is no Keras model. If it is interrupted, the same "
        "command resumes where it stopped.",
    )
    teacher = parser.add_mutually_exclusive_group(required=True)
    teacher.add_argument("teacher", type=Path, nargs="?", metavar=MODEL)
    teacher.add_argument(
        "--predictions",
        metavar="FILE.npy|FILE.npz",
        help="outputs of a teacher in the order of the examples: its logits, shaped (examples, "
        "..., classes); .npz: an array for each output, 'logits' or the name of a layer",
    )
    parser.add_argument(
        "--data",
        metavar="DATA.npy|DATA.npz",
        help="the examples, as the teacher takes them and in the order in which students will get "
        "them before any shuffling; .npz: an array for each input. With --predictions, the "
        "examples that these are of, so that a wrong pairing is noticed later",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE.store", help="the store"
    )
    _add_contents(parser)
    parser.add_argument(
        "--batch-size",
        type=whole_number(1, usual=256),
        default=256,
        help="how many examples the teacher gets at once (default: %(default)s)",
    )
    add_custom_objects(parser)
    add_json(parser)
    parser.set_defaults(run=_run)


def _add_contents(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is stored")
    group.add_argument(
        "--outputs",
        nargs="+",
        metavar="NAME",
        help="'logits', which is what the teacher puts out, and names of its layers (default: "
        "logits)",
    )
    group.add_argument(
        "--keys",
        metavar="KEYS.npy",
        help="a key for each example, whole numbers or texts, by which students' data will name it "
        "(default: its position)",
    )
    group.add_argument(
        "--top-k",
        type=whole_number(1, usual=16),
        metavar="K",
        help="only the K largest logits of each example, and exactly how much probability the "
        "others have together (default: all)",
    )
    group.add_argument(
        "--dtype",
        choices=("float32", "float16", "uint8"),
        default="float16",
        help="how numbers are stored (default: %(default)s)",
    )
    group.add_argument(
        "--temperature",
        type=real_number(above=0),
        nargs="+",
        metavar="T",
        help="with --top-k: the temperatures at which students may be taught (default: 4)",
    )
    group.add_argument(
        "--probabilities",
        nargs="?",
        const="softmax",
        choices=("softmax", "sigmoid"),
        help="the predictions are probabilities, made by a softmax, or each separately by a "
        "sigmoid; their logits are stored",
    )


def _run(arguments: argparse.Namespace) -> Outcome:
    from keras_kd.data.examples import load_keys, map_examples

    _check(arguments)
    check_models(arguments.teacher)
    check_custom_objects(arguments.custom_objects)
    check_data(arguments.predictions, arguments.data, arguments.keys)
    check_output(arguments.output, is_file=True)
    _check_free(arguments.output)
    with working("reading the examples"):
        examples = arguments.data and map_examples(arguments.data)
        keys = arguments.keys and load_keys(arguments.keys)
    from keras_kd.teachers.stored.store_file import check_place
    from keras_kd.teachers.stored.summary import summarize

    check_place(arguments.output)
    if arguments.teacher:
        _ask(arguments, examples, keys)
    else:
        _take(arguments, examples, keys)
    summary = summarize(arguments.output)
    return Outcome(str(summary), summary.to_dict())


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what is missing or means nothing for this kind of teacher."""
    if arguments.teacher and arguments.data is None:
        raise problem(
            "a model without --data",
            "the examples to run it on",
            "add for example --data x_train.npy",
        )
    kind = "a model" if arguments.teacher else "--predictions"
    out_of_place = {
        "probabilities": arguments.teacher and "--predictions; how a model ends is seen",
        "outputs": arguments.predictions and "a model; the arrays of a .npz have their names",
        "custom_objects": arguments.predictions and "a model",
    }
    for name, place in out_of_place.items():
        if place and getattr(arguments, name):
            option = f"--{name.replace('_', '-')}"
            raise problem(f"{option} with {kind}", f"it with {place}", "leave it out")

    if arguments.temperature and arguments.top_k is None:
        raise problem(
            "--temperature without --top-k",
            "no temperature: with all logits stored, any can be applied later",
            "leave it out, or add --top-k 16, for example",
        )


def _check_free(output: Path) -> None:
    """Refuse a file that is something else than a store, before anything is imported."""
    # Links are named by the store itself.
    is_file = output.is_file() and not output.is_symlink()
    if is_file and output.stat().st_size and not is_database(output):
        raise problem(
            f"--output {str(output)!r}, which is not a store",
            "the name of a new file, or of a store that was begun",
            "choose another name",
        )


def _ask(arguments: argparse.Namespace, examples: Any, keys: Any) -> None:
    """Run a model over the examples."""
    from keras_kd.teachers import StoredTeacher

    with working("loading the model"):
        teacher = load_model(arguments.teacher, arguments.custom_objects)
        _check_examples(examples, teacher)
    if keys is None:
        dataset, key = (examples,), None
    else:
        dataset, key = (_with_keys(examples, keys),), _KEY
    StoredTeacher.create(
        teacher,
        dataset,
        arguments.output,
        arguments.outputs or "logits",
        key=key,
        batch_size=arguments.batch_size,
        **_form(arguments),
    )


def _check_examples(examples: Any, teacher: Any) -> None:
    """Find out from the first example whether these are examples for the model."""
    from keras_kd._examples import examples_by_name
    from keras_kd.tflite.student import Signature

    inputs = Signature(teacher).own_inputs
    arrays = examples if isinstance(examples, dict) else {inputs[0].name: examples}
    dtypes = {tensor.name: tensor.dtype for tensor in inputs}
    first = {
        name: _as_real(array[:1], dtypes.get(name) or array.dtype) for name, array in arrays.items()
    }
    examples_by_name(first, inputs, "data")


def _as_real(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Whole numbers as a real-valued input takes them: many teachers scale pixels themselves."""
    return array.astype(dtype) if array.dtype.kind in "bui" and dtype.kind == "f" else array


def _with_keys(examples: Any, keys: Any) -> dict[str, Any]:
    inputs = examples if isinstance(examples, dict) else {"input": examples}
    if _KEY in inputs:
        raise problem(
            f"--keys and an array {_KEY!r} in --data",
            "one of them",
            f"give the input {_KEY!r} of the model another name",
        )
    return {**inputs, _KEY: keys}


def _take(arguments: argparse.Namespace, examples: Any, keys: Any) -> None:
    """Read predictions."""
    from keras_kd.data.examples import map_examples
    from keras_kd.teachers import StoredTeacher

    StoredTeacher.from_outputs(
        map_examples(arguments.predictions),
        arguments.output,
        x=examples,
        keys=keys,
        key=_KEY,
        activation=arguments.probabilities,
        name=Path(arguments.predictions).stem,
        batch_size=arguments.batch_size,
        **_form(arguments),
    )


def _form(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "top_k": arguments.top_k,
        "dtype": arguments.dtype,
        "temperatures": arguments.temperature,
    }
