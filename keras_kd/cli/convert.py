"""`keras-kd convert`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_kd._checks import problem
from keras_kd.cli.arguments import (
    DATA,
    MODEL,
    TFLITE,
    add_custom_objects,
    add_json,
    add_target,
    check_custom_objects,
    check_data,
    check_models,
    examples,
    is_name_or_directory,
    labels,
    load_model,
    representative_data,
)
from keras_kd.cli.destination import Destination
from keras_kd.cli.terminal import Outcome, working

if TYPE_CHECKING:
    from keras_kd import tflite

_TYPES = ("float32", "int8", "uint8", "int16")
_PER_TENSOR = {"all": True, "dense": "dense", "none": False}
_METADATA = (
    "name",
    "description",
    "author",
    "license",
    "model_version",
    "input_kind",
    "word_separator",
    "sample_rate",
)


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "convert",
        help="convert a Keras model to .tflite and show that it computes the same",
        description="Convert a trained model to .tflite, compare the file with the model, and "
        "show the evidence.",
    )
    parser.add_argument("model", type=Path, metavar=MODEL)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE.tflite|DIR",
        help="a file, or a directory; with --target microcontroller a directory gets a whole "
        "project, ready to compile (default: MODEL.tflite beside the model)",
    )
    add_custom_objects(parser)
    add_json(parser)
    _add_form(parser)
    _add_evidence(parser)
    _add_metadata(parser)
    parser.set_defaults(run=_run)


def _add_form(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("form of the file")
    group.add_argument(
        "--quantization",
        choices=("float32", "float16", "dynamic_int8", "int8", "int16x8", "int4"),
        default="float32",
        help="how numbers are stored (default: %(default)s)",
    )
    add_target(group, "android")
    group.add_argument(
        "--representative-data",
        metavar=DATA,
        help="examples like those that the model was trained on, from which int8 and int16x8 read "
        "ranges; .npz: an array for each input",
    )
    group.add_argument(
        "--input-range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="the range that the model was trained on, for example 0 1; other data are warned of",
    )
    group.add_argument(
        "--input-type",
        choices=_TYPES,
        help="how int8 and int16x8 store inputs; uint8 takes the bytes of a camera, which stand "
        "for --input-range (default: float32; integers for microcontrollers)",
    )
    group.add_argument("--output-type", choices=_TYPES, help="how they store outputs, likewise")
    group.add_argument(
        "--per-tensor",
        nargs="?",
        const="all",
        choices=tuple(_PER_TENSOR),
        help="which kernels have one scale instead of one for each filter: all (meant if nothing "
        "follows), those of dense layers, or none (default: dense for microcontrollers, else none)",
    )


def _add_evidence(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("evidence")
    group.add_argument(
        "--verification-data",
        metavar="DATA.npy|DATA.npz",
        help="what model and file are compared on (default: the representative data, else random)",
    )
    group.add_argument(
        "--verification-labels",
        type=Path,
        metavar="LABELS.npy|LABELS.npz",
        help="the class, labels or targets of each of these examples; shows what model and file "
        "achieve; .npz: an array for each output",
    )


def _add_metadata(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "class names and metadata",
        "With --class-names, a file for android gets the metadata that MediaPipe and Android "
        "Studio read; for other targets the names are written beside the file, as labels.txt.",
    )
    group.add_argument(
        "--class-names",
        type=Path,
        metavar="NAMES.txt",
        help="the name of each class, one on a line",
    )
    group.add_argument(
        "--input-kind",
        choices=("image", "audio", "text", "numbers"),
        help="what the input is: numbers are spectrograms and measurements (default: what its "
        "shape says, with three channels an image)",
    )
    group.add_argument(
        "--vocabulary",
        type=Path,
        metavar="VOCAB.txt",
        help="of text, the words in the order of their numbers, one on a line; the first line may "
        "be empty, for padding",
    )
    group.add_argument(
        "--word-separator",
        metavar="REGEX",
        help="of text, what separates words (default: spaces, and punctuation but ')",
    )
    group.add_argument(
        "--sample-rate",
        type=int,
        metavar="HERTZ",
        help="of recordings as a microphone gives them, for example 16000",
    )
    group.add_argument(
        "--name",
        help="what the model is called (default: its file's name); with --target microcontroller "
        "what the files and variables of the project are named after (default: model)",
    )
    group.add_argument("--description", help="what it does")
    group.add_argument("--author", help="the author of the model")
    group.add_argument("--license", help="under which it may be used, for example Apache-2.0")
    group.add_argument("--model-version", help="its own version, for example 1.2.0")
    group.add_argument(
        "--color-input",
        action="store_true",
        help="let a grey-scale model take color images, which is what phones have",
    )
    group.add_argument(
        "--softmax",
        action="store_true",
        help="let a model of logits give probabilities, which is what phones show",
    )


def _run(arguments: argparse.Namespace) -> Outcome:
    destination, names, words = _checked(arguments)
    metadata = (
        _metadata(arguments, names, words) if arguments.target == "android" and names else None
    )
    with working("reading the examples") as say:
        data = _for_student(representative_data(arguments.representative_data), arguments)
        compared = _for_student(examples(arguments.verification_data), arguments)
        y = labels(arguments.verification_labels)
        from keras_kd import tflite

        say("loading the model")
        student = _student(arguments)
        say(f"converting to {arguments.quantization} and comparing")
        model = tflite.convert(
            student,
            arguments.quantization,
            data,
            arguments.target,
            input_type=arguments.input_type,
            output_type=arguments.output_type,
            per_tensor=_PER_TENSOR.get(arguments.per_tensor),
            input_range=arguments.input_range and tuple(arguments.input_range),
            verification_data=compared,
            y=y,
        )
        if metadata is not None:
            model = _described(model, metadata, arguments.input_range)
        elif words:
            from keras_kd.tflite.android.vocabulary import check_text

            check_text(model, words)
        evidence = model.verification
        say("writing")
        vectors = next((each for each in (compared, data) if _is_in_memory(each)), None)
        written = [
            str(path) for path in destination.write(model, names, vectors, arguments.name, words)
        ]
    inspection = model.inspect()
    assert evidence is not None
    return Outcome(
        "\n".join(
            [
                *_listed("Inputs", map(str, model.inputs)),
                *_listed("Outputs", map(str, model.outputs)),
                str(evidence),
                *_listed("Written", written),
            ]
        ),
        {
            "files": written,
            "inspection": inspection.to_dict(),
            "verification": evidence.to_dict(),
        },
    )


def _checked(
    arguments: argparse.Namespace,
) -> tuple[Destination, tuple[str, ...], tuple[str, ...]]:
    """Where the result goes, the names of the classes and the vocabulary, before heavy imports.

    Raises:
        ValueError: if options contradict one another.
        FileNotFoundError: if a file is not there.
    """
    check_models(arguments.model)
    if arguments.model.suffix == TFLITE:
        raise problem(
            f"the file {str(arguments.model)!r}",
            "a model that Keras has saved: a .tflite is the result",
            "name the .keras that it was made from; keras-kd verify and inspect take a .tflite",
        )
    check_custom_objects(arguments.custom_objects)
    data = arguments.representative_data
    check_data(
        None if data is None or is_name_or_directory(data) else data,
        arguments.verification_data,
        arguments.verification_labels,
    )
    destination = Destination.of(arguments.model, arguments.output, arguments.target)
    names = _class_names(arguments, destination)
    words = _words(arguments)
    _check_form(arguments)
    return destination, names, words


def _check_form(arguments: argparse.Namespace) -> None:
    """Refuse forms that need what was not given, or that the target does not run."""
    from keras_kd._representative.ranges import checked_ranges
    from keras_kd.tflite.conversion.forms import FORMS
    from keras_kd.tflite.conversion.targets import TARGETS

    form = FORMS[arguments.quantization]
    place = TARGETS[arguments.target]
    place.check_refused(form.name)
    place.end_types(form, False, arguments.input_type, arguments.output_type)
    if arguments.input_range is not None:
        checked_ranges(tuple(arguments.input_range), ["input"])
    if form.needs_data and arguments.representative_data is None:
        raise problem(
            f"--quantization {form.name} without --representative-data",
            "examples from which the ranges of the activations are read",
            "add --representative-data x_train.npy, a directory of images or the name of a "
            "TFDS data set",
        )
    if _PER_TENSOR.get(arguments.per_tensor) and not form.has_choice_of_scales:
        raise problem(
            f"--per-tensor with --quantization {form.name}",
            "--quantization int8 or int16x8, the only forms with a choice of scales",
            "choose --quantization int8, or leave --per-tensor out",
        )
    if arguments.verification_labels is not None and arguments.verification_data is None:
        raise problem(
            "--verification-labels, labels without --verification-data",
            "the examples that they belong to",
            "add --verification-data x_test.npy",
        )


def _class_names(arguments: argparse.Namespace, destination: Destination) -> tuple[str, ...]:
    from keras_kd.tflite import android
    from keras_kd.tflite.microcontroller.c_source import check_name

    given = [name for name in _METADATA if getattr(arguments, name) is not None]
    if arguments.name is not None and destination.is_project and not destination.is_file:
        check_name(arguments.name)
        given.remove("name")
    lacking = [*given, *(["vocabulary"] if arguments.vocabulary is not None else [])]
    if arguments.class_names is None and lacking:
        raise problem(
            f"--{lacking[0].replace('_', '-')} without --class-names",
            "the name of each class: metadata are for classifiers",
            "add --class-names labels.txt, or leave it out",
        )
    if arguments.target != "android" and (given or (arguments.class_names and destination.is_file)):
        raise problem(
            f"metadata with --target {arguments.target}",
            "--target android, whose files hold them, or a directory with --class-names "
            "and --vocabulary alone",
            "choose a directory as --output, and leave out other metadata",
        )
    return () if arguments.class_names is None else android.read_class_names(arguments.class_names)


def _words(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The vocabulary; nothing where none is given."""
    from keras_kd.tflite import android

    return () if arguments.vocabulary is None else android.read_vocabulary(arguments.vocabulary)


def _student(arguments: argparse.Namespace) -> Any:
    from keras_kd.tflite import android

    student = load_model(arguments.model, arguments.custom_objects)
    if arguments.color_input:
        student = android.with_color_input(student)
    return android.with_softmax(student) if arguments.softmax else student


def _for_student(data: Any, arguments: argparse.Namespace) -> Any:
    """The examples, grey ones in three equal channels if the student gets a color input."""
    import numpy as np

    if arguments.color_input and isinstance(data, np.ndarray):
        data = data[..., np.newaxis] if data.ndim == 3 else data
        return np.repeat(data, 3, axis=-1) if data.shape[-1] == 1 else data
    return data


def _is_in_memory(data: Any) -> bool:
    """Whether these are arrays, not the name of a data set or a directory."""
    return data is not None and not isinstance(data, str)


def _metadata(
    arguments: argparse.Namespace, names: tuple[str, ...], words: tuple[str, ...]
) -> tflite.android.Metadata:
    from keras_kd.tflite import android

    return android.Metadata(
        names,
        name=arguments.name or arguments.model.stem,
        description=arguments.description or "",
        author=arguments.author or "",
        license=arguments.license or "",
        version=arguments.model_version or "",
        input_kind=arguments.input_kind,
        sample_rate=arguments.sample_rate,
        vocabulary=words or None,
        **({"word_separator": separator} if (separator := arguments.word_separator) else {}),
    )


def _described(
    model: tflite.TFLiteModel,
    metadata: tflite.android.Metadata,
    input_range: Sequence[float] | None,
) -> tflite.TFLiteModel:
    """The model with its metadata, for images with the scaling of pixels."""
    from keras_kd.tflite import android
    from keras_kd.tflite.android.metadata import kind_of_input

    if kind_of_input(model, metadata) == "image":
        mean, std = android.normalization(*(input_range or (0, 1)))
        metadata = replace(metadata, mean=mean, std=std)
    return android.add_metadata(model, metadata)


def _listed(heading: str, lines: Iterable[str]) -> list[str]:
    return [f"{heading}:", *(f"  {line}" for line in lines)]
