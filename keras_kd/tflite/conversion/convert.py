"""From a Keras model to the checked bytes that run on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from keras_kd._backends import check_tensorflow
from keras_kd._checks import check_choice, check_flag, problem
from keras_kd._keras import check_model, is_keras_model
from keras_kd._representative import (
    MAX_EXAMPLES,
    InputRange,
    checked_ranges,
    representative_examples,
    some_of,
)
from keras_kd.tflite.contents.flatbuffer import FlatBufferModel
from keras_kd.tflite.conversion.converter import run_converter
from keras_kd.tflite.conversion.ends import (
    BYTES,
    byte_ranges,
    check_inputs,
    equalize_states,
    reset_states,
    separate_outputs,
    warn_of_other_ranges,
)
from keras_kd.tflite.conversion.evidence import known_evidence, naming_dependence, random_evidence
from keras_kd.tflite.conversion.forms import DENSE, FORMS, Form, Options, check_integer_inputs
from keras_kd.tflite.conversion.layer_names import in_layers, layer_names
from keras_kd.tflite.conversion.quantizer import quantize
from keras_kd.tflite.conversion.refusals import check_layers, check_unwrapped
from keras_kd.tflite.conversion.targets import TARGETS, Target
from keras_kd.tflite.model import TFLiteModel
from keras_kd.tflite.student import Signature, is_quantization_aware, prepared
from keras_kd.tflite.tensors import TensorInfo
from keras_kd.tflite.verification.closeness import check_close, warn_of_lost
from keras_kd.tflite.verification.verification import (
    check_finite_constants,
    check_finite_outputs,
    check_finite_weights,
    compare_with_student,
)


def convert(
    student: Any,
    quantization: str = "float32",
    representative_data: Any = None,
    target: str = "android",
    *,
    input_type: str | None = None,
    output_type: str | None = None,
    per_tensor: bool | str | None = None,
    input_range: InputRange = None,
    recipe: Any = None,
    verification_data: Any = None,
    y: Any = None,
) -> TFLiteModel:
    """Convert a trained student to TFLite, check what came out and compare it with the student.

    The file takes one example at a time and names its inputs and outputs as the student does. It
    needs nothing but the built-in operators of the runtimes. Options are checked on the
    result: the types of inputs, outputs and weights, no Flex and no variable operators. Outputs
    that differ from the student's are an error. A Keras 3 student that fails is converted in the
    form of tf_keras (`keras_kd.compression.to_tf_keras`), which has other operators;
    `verification.notes` mentions it, and the comparison is with the student as it was given.

    A file keeps nothing from one call to the next. The states of recurrent layers with
    `stateful=True` become inputs and outputs: what comes out as "lstm_h_next" is fed to "lstm_h" of
    the next call, zeros begin a stream. See `TFLiteModel.predict_stream`.

    | quantization | weights | computes in | inputs and outputs | needs data | runs on |
    |---|---|---|---|---|---|
    | "float32" | float32 | float32 | float32 | no | all targets |
    | "float16" | float16 | float32 | float32 | no | android, web |
    | "dynamic_int8" | int8 in large kernels | int8 and float32 | float32 | no | android, web |
    | "int8" | int8 | int8 | float32; int8 on microcontrollers | yes | all targets |
    | "int16x8" | int8 | int16 | float32; int16 on microcontrollers | yes | all targets |
    | "int4" | int4 in most kernels | int8 and float32 | float32 | no | android, web |

    "int16x8" has no fast kernels on phones. A student with sizes that it leaves open, such as
    `keras.Input((None, 8))`, becomes a file whose input is resized to what it is fed; on
    microcontrollers and in browsers sizes must be known.

    Args:
        student: a trained Keras 3 or tf_keras model. Pruned ones are stripped first, with
            `keras_kd.compression.strip`; quantization-aware ones are passed as they are and
            convert to "int8" only. Models in mixed precision are converted in float32.
        quantization: how numbers are stored, see above.
        representative_data: examples like those that the student was trained on, scaled in the
            same way, from which the ranges of its activations are read. Needed for "int8" and
            "int16x8" unless the student is quantization-aware in every layer
            (`compression.summary` names those that compute in float). All training data will do:
            a sample of 500 is chosen from them. An array, a dict or a list of arrays, a pair
            `(x, y)`, a `tf.data.Dataset` as for `fit`, a generator of batches or a function that
            returns one, such as TFLite's `representative_dataset`, a `.npy` or `.npz` file, a
            directory of images, or the name of a TFDS data set. With labels, as in `(x, y)`, every
            class is in the sample, and missing ones are warned of.
            Students that may loop over time are calibrated in a separate process, because some
            loops end it.
        target: "android", "microcontroller" or "web". Names of inner tensors are left out and
            weights aligned to 16 bytes. "microcontroller" is TensorFlow Lite Micro (TFLM): if
            tflite-micro is installed, the file is run in it, where it must give the bits of
            LiteRT's reference kernels on the examples that it is verified on. "web" is LiteRT in
            browsers (`@litertjs/core`).
        input_type: how real numbers are stored in the inputs: "float32", "int8" or "uint8" for
            "int8", "float32" or "int16" for "int16x8"; by default as in the table. What is written
            out as "int8" or "uint8" takes the bytes of a camera or a sensor as they are: they stand
            for `input_range`, without which it is 0..1, 0..255 or -1..1 if the examples have that
            range, and else what they reach. Bytes are exact for ranges that begin at 0; around 0
            they are off by half a step.
        output_type: how they are stored in the outputs, likewise.
        per_tensor: for "int8", "int16x8" and recipes, which weights have one scale per tensor
            instead of one per channel, which is more precise: True for all (some accelerators need
            this), "dense" for those of dense layers, False for none. By default "dense" on
            microcontrollers, where it saves arena and runs in every TFLM, and for
            quantization-aware students, which have learnt it so; elsewhere False.
        input_range: (low, high), the range that the student was trained on; a dict by input name
            where there are several. `representative_data` in another are refused.
        recipe: different forms for different layers, instead of `quantization`: a dict from names
            of layers (regular expressions) to quantizations, or a recipe of ai-edge-quantizer.
        verification_data: examples on which the file is compared with the student: an array or a
            dict or list by input. By default up to 100 of `representative_data`, without them
            random numbers: in `input_range`, else in the range that a quantization-aware student
            has learnt, else from 0 to 1.
        y: the right classes, labels or targets of `verification_data`, to measure file and
            student; see `keras_kd.tflite.verify`.

    Returns:
        The converted model. Its `verification` is the evidence: see `Verification`.

    Raises:
        TypeError: if `representative_data` is of another type.
        ValueError: if the student, the data and the options do not fit together, if a weight or an
            output is NaN or infinite, or if the result differs from the request.

    Example:
        ```python
        model = keras_kd.tflite.convert(student, "int8", representative_data=x_train)
        print(model.verification)
        model.save("student.tflite")
        ```
    """
    check_tensorflow("keras_kd.tflite.convert")
    check_model("student", student)
    form = FORMS[check_choice("quantization", quantization, FORMS)]
    place = TARGETS[check_choice("target", target, tuple(TARGETS))]
    _check_options(form, place, recipe)
    ends = place.end_types(form, recipe is not None, input_type, output_type)
    scales = _scales(student, form, place, per_tensor, recipe)
    check_layers(student, form, (), place.fallback)
    _check_student(student, form, representative_data, recipe)
    check_finite_weights(student)
    signature = prepared(student)
    place.check_lengths({tensor.name: tensor.shape for tensor in signature.inputs})
    dtypes = {tensor.name: tensor.dtype for tensor in signature.inputs}
    check_integer_inputs(form, dtypes, place.fallback)
    check_inputs(form, signature, input_type)
    ranges = checked_ranges(input_range, [tensor.name for tensor in signature.own_inputs])
    examples = None
    if representative_data is not None:
        examples = representative_examples(
            representative_data,
            signature.own_inputs,
            input_range=input_range,
            # What is called with a state alone cannot be called for the look at the data.
            student=None if signature.states else signature.model,
            is_stream=bool(signature.states),
        )
        if signature.states:
            examples = some_of(signature.with_states(examples), MAX_EXAMPLES)
    evidence = known_evidence(signature, verification_data, y, examples)
    are_bytes = input_type in BYTES
    bytes_from_to = byte_ranges(signature, ranges, examples) if are_bytes else {}
    options = Options(form, *ends, scales, bytes_from_to, place.fallback)

    def file_of(form_of_student: Signature) -> FlatBufferModel:
        check_layers(form_of_student.model, form, place.missing, place.fallback)
        return _converted(form_of_student, options, recipe, examples)

    def finished(file: FlatBufferModel, notes: tuple[str, ...]) -> TFLiteModel:
        model = TFLiteModel(file.content)
        # It need not be unpacked again.
        model.flatbuffer = file
        check_result(
            model,
            signature.inputs,
            options,
            examples is not None,
            recipe is not None,
            has_chosen_scales=per_tensor is not None,
            in_layers=lambda names: in_layers(signature, names),
        )
        if input_type is None and output_type is None:
            place.check_ends(model)
        # The evidence is about the very bytes that are returned.
        model = TFLiteModel(place.finished(model))
        compared = evidence or random_evidence(signature, model, ranges)
        verification = compare_with_student(
            model, signature, compared.examples, compared.y, compared.data
        )
        # How far off the layers of a recipe may be is that of the roughest form.
        quantized_as = "int4" if recipe is not None else quantization
        with naming_dependence(signature, compared.examples):
            check_close(verification, quantized_as, place.fallback)
        check_finite_constants(model)
        check_finite_outputs(verification)
        place.check(model, compared.examples)
        model.verification = replace(verification, notes=notes)
        return model

    model = first_accepted(signature, file_of, finished, place.rewritten)
    assert model.verification is not None  # `finished` has set it.
    warn_of_lost(model.verification)
    warn_of_other_ranges(model, bytes_from_to)
    return model


def _converted(
    signature: Signature, options: Options, recipe: Any, examples: dict[str, np.ndarray] | None
) -> FlatBufferModel:
    """The file; nothing of it is checked."""
    form = options.form
    data = examples if form.needs_data else None
    content = run_converter(signature, options, data)
    if recipe is not None or form.is_by_layer:
        forms = {"*": form.name} if recipe is None else recipe
        content = quantize(
            content, forms, examples, layer_names(signature), options.per_tensor, options.fallback
        )
    changes = [reset_states, separate_outputs, *([equalize_states] if signature.states else [])]
    return FlatBufferModel(content).changed(*changes)


def _scales(student: Any, form: Form, place: Target, per_tensor: Any, recipe: Any) -> bool | str:
    """Which weights have one scale per tensor; see `convert`."""
    has_choice = form.has_choice_of_scales or recipe is not None
    if per_tensor is None:
        if not has_choice:
            return False
        return DENSE if is_quantization_aware(student) else place.per_tensor
    if per_tensor != DENSE:
        check_flag("per_tensor", per_tensor)
    if per_tensor and not has_choice:
        raise problem(
            f"per_tensor={per_tensor!r} for quantization={form.name!r}",
            "quantization='int8' or 'int16x8', the only forms with a choice of scales",
            "choose quantization='int8', or leave per_tensor out",
        )
    return per_tensor


def _check_options(form: Form, place: Target, recipe: Any) -> None:
    if recipe is None:
        place.check_form(form.name)
    elif form.name != "float32":
        raise problem(
            f"quantization={form.name!r} beside a recipe",
            "a recipe with the form of every layer",
            f"leave quantization out; pass recipe={{..., '*': {form.name!r}}} for the rest",
        )


def _check_student(student: Any, form: Form, representative_data: Any, recipe: Any) -> None:
    check_unwrapped(student)
    if is_quantization_aware(student):
        if recipe is not None or not form.takes_quantization_aware:
            asked = "a recipe" if recipe is not None else f"quantization={form.name!r}"
            raise problem(
                f"{asked} for a quantization-aware student",
                "'int8', the form that it was trained for",
                "choose quantization='int8', in which weights keep the bits that they were "
                "trained for, or pass keras_kd.compression.strip(student)",
            )
    elif form.needs_data and representative_data is None:
        raise problem(
            f"quantization={form.name!r} without representative_data",
            "examples from which the ranges of the activations are read",
            "pass representative_data=x_train"
            + (", or a quantization-aware student" if form.takes_quantization_aware else ""),
        )


_VARIABLE_OPERATORS = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE")


def check_result(
    model: TFLiteModel,
    inputs: Sequence[TensorInfo],
    options: Options,
    is_calibrated: bool,
    is_by_recipe: bool = False,
    *,
    has_chosen_scales: bool = True,
    in_layers: Callable[[list[str]], str] = lambda _: "",
) -> None:
    """Refuse a file that differs from the request.

    Args:
        model: what the converter made.
        inputs: what the student takes.
        options: those of the conversion.
        is_calibrated: whether ranges were read from examples.
        is_by_recipe: whether layers have different forms, which are not checked.
        has_chosen_scales: whether the user, not a default, chose how many scales weights have.
        in_layers: from names of tensors to the layers that compute them, for messages.

    Raises:
        ValueError: if it needs more than built-in operators without variables, or if its inputs,
            its outputs, its weights, their scales or its operators differ from the request.
    """
    _check_operators(model)
    _check_inputs(model, inputs)
    if is_by_recipe:
        return
    options.form.check_contents(model.flatbuffer, is_calibrated, options.fallback, in_layers)
    if options.per_tensor and has_chosen_scales:
        _check_one_scale(model, options.per_tensor)
    _check_types(model, inputs, options)


def _check_operators(model: TFLiteModel) -> None:
    # Flex operators are not looked for: LiteRT has not loaded the file if there were any.
    refused = [name for name in model.operators if name in _VARIABLE_OPERATORS]
    if refused:
        raise problem(
            f"a student that converts to the operators {', '.join(refused)}",
            "built-in operators without variables: nothing else runs on a device",
            "replace the layers that compute them",
        )
    if model.stateful:
        raise problem(
            f"a file with state: {model.state}",
            "the same outputs in every call for the same inputs",
            "report this student: the converter gave it a state",
        )


def _check_one_scale(model: TFLiteModel, per_tensor: bool | str) -> None:
    most = model.flatbuffer.most_scales(*(["FULLY_CONNECTED"] if per_tensor == DENSE else []))
    if most > 1:
        raise problem(
            f"a file with weights of {most} scales",
            f"one scale for each tensor, for per_tensor={per_tensor!r}",
            "leave per_tensor out: a quantization-aware student has learnt its scales",
        )


def _check_inputs(model: TFLiteModel, inputs: Sequence[TensorInfo]) -> None:
    shapes = {tensor.name: tensor.shape for tensor in inputs}
    for tensor in model.inputs:
        if shapes.get(tensor.name) != tensor.shape:
            raise problem(
                f"a file with the input {tensor}",
                f"the inputs of the student, {', '.join(map(str, inputs))}",
                "report this student: the converter changed its inputs",
            )


def _check_types(model: TFLiteModel, inputs: Sequence[TensorInfo], options: Options) -> None:
    """The types at both ends."""
    dtypes = {tensor.name: tensor.dtype for tensor in inputs}
    for tensor in model.inputs:
        # A state goes in as it comes out.
        is_state = tensor.name in model.state_outputs
        stored = options.output_type if is_state else options.input_type
        _check_type(tensor, dtypes[tensor.name], stored)
    for tensor in model.outputs:
        real = tensor.is_quantized or np.issubdtype(tensor.dtype, np.floating)
        dtype = np.dtype("float32") if real else tensor.dtype
        _check_type(tensor, dtype, options.output_type)


def _check_type(tensor: TensorInfo, dtype: np.dtype, stored: str) -> None:
    """A real number is stored with a scale, or as it is; an integer always as it is."""
    quantized = stored != "float32" and np.issubdtype(dtype, np.floating)
    expected = np.dtype(stored) if quantized else dtype
    if tensor.dtype != expected or tensor.is_quantized != quantized:
        raise problem(
            f"a file whose tensor {tensor.name!r} is {tensor.dtype} with the scale {tensor.scale}",
            f"{expected}{' with a scale' if quantized else ''}",
            "report this student: the converter ignored an option",
        )


_Notes = tuple[str, ...]
_AS_TF_KERAS = "converted as keras_kd.compression.to_tf_keras(student)"
# What a message advises that was done here.
_ADVICE = "pass keras_kd.compression.to_tf_keras(student)"
_LONGEST_REASON = 160


def first_accepted(
    signature: Signature,
    file_of: Callable[[Signature], FlatBufferModel],
    finished: Callable[[FlatBufferModel, _Notes], TFLiteModel],
    rewritten: Callable[[bytes], tuple[bytes, _Notes]] | None,
) -> TFLiteModel:
    """The file of a student; where it is refused, of the first other form that is not.

    First comes the student as it is, then as tf_keras computes it, then both with operators that
    the target lacks written as others.

    Args:
        signature: the student.
        file_of: from a form of the student to the file that the converter makes of it.
        finished: from this file, and notes for the user, to a checked model.
        rewritten: from bytes to those without operators that the target lacks, and the names of
            what was replaced; None where nothing is.

    Raises:
        ValueError: why the student as it is was refused, if every form of it is; why its other form
            was, if the advice is to take that one.
    """
    made: list[tuple[FlatBufferModel, _Notes]] = []
    refusals: list[ValueError] = []
    try:
        made.append((file_of(signature), ()))
        return finished(*made[-1])
    except ValueError as error:
        refusals.append(error)
    reason = _reason(refusals[0])
    other = _in_tf_keras(signature)
    if other is not None:
        try:
            made.append((file_of(other), (f"{_AS_TF_KERAS}{reason}",)))
            return finished(*made[-1])
        except ValueError as error:
            refusals.append(error)
    if rewritten is not None:
        for file, notes in made:
            content, names = rewritten(file.content)
            if not names:
                continue
            how = f"{' and '.join(names)} written as CONCATENATION of ten inputs at most"
            try:
                return finished(FlatBufferModel(content), (*notes, how if notes else how + reason))
            except ValueError as error:
                refusals.append(error)
    raise next((each for each in refusals if _ADVICE not in str(each)), refusals[0])


def _in_tf_keras(signature: Signature) -> Signature | None:
    if not is_keras_model(signature.model):
        return None
    # Where Keras runs on another backend than TensorFlow, this package cannot be imported.
    from keras_kd.compression.bridge.rebuilding import to_tf_keras

    try:
        other = Signature(to_tf_keras(signature.model), named_as=signature.model)
    except (ValueError, TypeError, NotImplementedError):
        # Subclassed models cannot be rebuilt.
        return None
    return other if set(other.inputs) == set(signature.inputs) else None


def _reason(refusal: ValueError) -> str:
    """What was refused, in short: the converter's own words fill a page."""
    received = str(refusal).removeprefix("Received ").split(". Expected")[0]
    if len(received) > _LONGEST_REASON:
        received = received[: _LONGEST_REASON - 3] + "..."
    return f"; refused as it is: {received}"
