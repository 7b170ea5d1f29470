"""The forms in which a file can hold a student: one row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd.tflite.contents.flatbuffer import FlatBufferModel

# Of dense layers alone.
DENSE = "dense"


@dataclass(frozen=True)
class Form:
    """How a file stores weights and computes.

    Attributes:
        name: what users call it.
        weights: the type, as the schema names it, that some of its weights must have; None where
            nothing is to be asserted.
        integers: the numpy type in which it computes; None where activations are real numbers.
        operations: the set of `tf.lite.OpsSet` that the converter may use, if not its default.
        supported_type: the type, as `tf` names it, that the converter stores.
        is_optimized: whether the converter quantizes at all.
        has_choice_of_scales: whether weights can have one scale per tensor as well as per channel.
        takes_integer_inputs: whether the student may have inputs that are no real numbers.
        is_by_layer: whether ai-edge-quantizer makes it, which TensorFlow's converter cannot.
        too_small: when the converter gives nothing this type.
    """

    name: str
    weights: str | None = None
    integers: str | None = None
    operations: str | None = None
    supported_type: str | None = None
    is_optimized: bool = True
    has_choice_of_scales: bool = False
    takes_integer_inputs: bool = True
    is_by_layer: bool = False
    too_small: str = ""

    @property
    def needs_data(self) -> bool:
        """Whether ranges of activations must be known: from examples, or from training."""
        return self.integers is not None

    @property
    def end_types(self) -> tuple[str, ...]:
        """The types, as numpy names them, that real numbers can have in inputs and outputs."""
        if self.integers == "int8":
            return "float32", "int8", "uint8"
        return ("float32",) if self.integers is None else ("float32", self.integers)

    @property
    def takes_quantization_aware(self) -> bool:
        """Whether it is the form that quantization-aware students were trained for."""
        return self.integers == "int8"

    def configure(self, converter: Any, *, per_tensor: bool | str) -> None:
        """Set the options of a `tf.lite.TFLiteConverter`, the data for calibration excepted."""
        import tensorflow as tf

        if self.is_optimized:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if self.supported_type is not None:
            converter.target_spec.supported_types = [getattr(tf, self.supported_type)]
        # They have no public names; the bytes are checked afterwards.
        converter._experimental_disable_per_channel = per_tensor is True
        converter._experimental_disable_per_channel_quantization_for_dense_layers = (
            per_tensor == DENSE
        )

    def check_contents(
        self,
        contents: FlatBufferModel,
        is_calibrated: bool,
        fallback: str,
        in_layers: Callable[[list[str]], str],
    ) -> None:
        """Refuse a file that is in another form.

        Args:
            contents: the file.
            is_calibrated: whether ranges were read from examples.
            fallback: a form for what integers cannot compute.
            in_layers: from names of tensors to the layers that compute them, for messages.

        Raises:
            ValueError: if no weight has the type of the form, or if there are floating-point
                numbers between inputs and outputs in a form of integers.
        """
        if self.weights is not None and self.weights not in contents.weight_types():
            raise problem(
                f"a file without any {self.weights.lower()} weights from the converter",
                f"{self.name} weights{self.too_small}",
                "choose quantization='int8' or 'float32' for such a student",
            )
        operators = contents.float_operators()
        if self.integers is not None and operators:
            fix = (
                f"{_ways_out(operators)}replace the layers that compute them, or choose "
                f"quantization={fallback!r}"
                if is_calibrated
                else "pass representative_data: a quantization-aware student needs it where TF-MOT "
                "leaves layers in float"
            )
            raise problem(
                f"a file in which {', '.join(operators)} compute in floating point"
                f"{in_layers(contents.float_results())}",
                f"integers only, for quantization={self.name!r}",
                fix,
            )
        between = contents.float_tensors()
        if self.integers is not None and between:
            raise problem(
                f"a file that turns integers into real numbers and back in {len(between)} "
                f"places ({', '.join(between[:3])}){in_layers(contents.float_results())}",
                f"integers only, for quantization={self.name!r}",
                f"choose quantization={fallback!r}, or convert "
                "keras_kd.compression.strip(student) if it is quantization-aware",
            )


def _ways_out(operators: Sequence[str]) -> str:
    """What may help short of another form; ends in a comma."""
    if "CAST" in operators:
        return "let the student take float32 instead of turning integers into real numbers, "
    return ""


FORMS = {
    form.name: form
    for form in (
        Form("float32", is_optimized=False),
        Form("float16", weights="FLOAT16", supported_type="float16"),
        Form(
            "dynamic_int8",
            weights="INT8",
            too_small="; kernels of fewer than 1024 values stay float32 in dynamic_int8",
        ),
        Form(
            "int8",
            integers="int8",
            operations="TFLITE_BUILTINS_INT8",
            has_choice_of_scales=True,
        ),
        Form(
            "int16x8",
            integers="int16",
            operations="EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8",
            takes_integer_inputs=False,
            has_choice_of_scales=True,
        ),
        Form("int4", weights="INT4", is_optimized=False, is_by_layer=True),
    )
}


def check_integer_inputs(form: Form, dtypes: dict[str, np.dtype], fallback: str) -> None:
    """Refuse words and pixels that are integers where the converter cannot calibrate them.

    Args:
        form: the requested form.
        dtypes: of the student's inputs, by name.
        fallback: a form for what integers cannot compute.

    Raises:
        ValueError: if there are some.
    """
    integers = [name for name, dtype in dtypes.items() if not np.issubdtype(dtype, np.floating)]
    if integers and not form.takes_integer_inputs:
        raise problem(
            f"quantization={form.name!r} for a student with integers in its inputs {integers}",
            "real numbers in every input: the converter cannot calibrate the others",
            f"choose quantization='int8' or {fallback!r}",
        )


@dataclass(frozen=True)
class Options:
    """What the converter is to make.

    Attributes:
        form: how numbers are stored.
        input_type: how real numbers are stored in inputs: "float32", or integers with a scale.
        output_type: the same of outputs.
        per_tensor: whether weights have one scale per tensor instead of one per channel: True,
            False, or "dense" for those of dense layers alone.
        fallback: a form for what integers cannot compute, which messages name.
        input_ranges: by the names of inputs from where to where 8 bits reach in them; of others the
            examples decide.
    """

    form: Form
    input_type: str = "float32"
    output_type: str = "float32"
    per_tensor: bool | str = False
    input_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    fallback: str = "dynamic_int8"
