"""Quantization-aware training: the student learns with the rounding errors of its integers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from keras_kd._checks import check_flag, check_integer, check_number, problem
from keras_kd._keras import check_model, is_keras_model, tf_keras
from keras_kd._representative import representative_examples
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.rebuilding import rebuild, to_tf_keras
from keras_kd.compression.quantization.calibration import calibrate, model_inputs
from keras_kd.compression.quantization.placement import supports
from keras_kd.compression.selection import Selection, select
from keras_kd.compression.state import CLUSTERED, PRUNED, check_state
from keras_kd.compression.stripping import dismantle

# A few outliers are what a fixed range is there to cut off.
_TOLERATED_OUTSIDE = 0.01
InputRange = tuple[float, float] | Mapping[str, tuple[float, float]] | None


def quantize_aware(
    student: Any,
    representative_data: Any = None,
    *,
    layers: Selection = None,
    skip: Selection = None,
    per_axis: bool = True,
    weight_bits: int = 8,
    activation_bits: int = 8,
    input_range: InputRange = None,
    preserve: bool = True,
) -> Any:
    """Make a student that computes as if in integers while it trains (Jacob et al., 2018).

    Weights and activations are rounded as TFLite will round them, with the quantizers of TF-MOT.
    What TF-MOT has no quantizer for stays in float; `quantization_summary` says which layers, and
    why. Convert such a student to "int8" with `representative_data`, from which the converter then
    takes the ranges that are missing.

    A batch normalization after a convolution or a Dense layer is folded into it in the file, and
    nothing is rounded in between. Frozen layers stay frozen. Layers keep their own names behind
    the prefix "quant_". The student computes in float32.

    Args:
        student: a Sequential or Functional model of either Keras, plain, pruned or clustered; it
            is not changed.
        representative_data: inputs like those that the student is trained on, from which the ranges
            of activations are measured: an array, a dict of arrays by input name where there are
            several inputs, or an iterable of batches of these. Without it they begin at -6 to 6 and
            follow slowly while the student trains, which costs accuracy in trainings of fewer than
            some thousand steps.
        layers: the layers that are quantized, by name, type or function; by default all that can
            be. What is not chosen stays in float while the student trains.
        skip: layers that stay in float, likewise.
        per_axis: whether each channel of a convolution has a range of its own. Dense and
            Conv2DTranspose kernels have one range in any case.
        weight_bits: 2 to 8. Up to 4 bits are stored as 4-bit integers, more as 8-bit integers,
            where fewer bits show after compression only.
        activation_bits: 2 to 8. TFLite computes with 8-bit integers: fewer than 5 bits can be
            trained but not converted, and 5 to 7 cost accuracy without a smaller file.
        input_range: the smallest and the largest number that the inputs can hold, such as (0, 1),
            fixed from now on; a dict by input name where there are several. By default it is the
            range of all inputs seen.
        preserve: whether weights that are zero stay zero, and weights of a clustered kernel that
            are equal stay equal, so that the compression of the file is not lost. Equal weights
            then share the mean of their gradients. It holds for layers in float too.

    Returns:
        A functional `tf_keras.Model`; compile it before training. `load` reads it back from a
        file.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if the student is quantization-aware already, if no layer of it can be
            quantized, or if an argument does not fit it.

    Example:
        ```python
        aware = compression.quantize_aware(student, x_train[:500], input_range=(0, 1))
        print(compression.quantization_summary(aware))
        ```

    Reference: Benoit Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018.
    """
    check_model("student", student)
    weight_bits, activation_bits = (
        _checked_bits(name, bits)
        for name, bits in (("weight_bits", weight_bits), ("activation_bits", activation_bits))
    )
    check_flag("per_axis", per_axis)
    check_flag("preserve", preserve)
    check_state(
        graphs.read(student),
        (PRUNED, CLUSTERED),
        "train this one, or call `strip` on it first",
    )
    plain = rebuild(_graph_in_tf_keras(student), tf_keras(), _in_float32)
    graph = graphs.read(plain)
    own = graphs.read(student) if is_keras_model(student) else graph
    chosen = select(own, layers, skip, supports, "quantized")
    limits = _checked_ranges(input_range, [spec.name for spec in graph.input_specs])
    examples = None
    if representative_data is not None:
        examples = representative_examples(representative_data, model_inputs(plain))
        _warn_of_clipping(examples, limits)

    from keras_kd.compression.quantization import _scheme

    scheme = _scheme.Scheme(weight_bits, activation_bits, per_axis, limits, preserve)
    quantized = scheme.apply(graph, chosen)
    calibrate(quantized, examples)
    return quantized


def _warn_of_clipping(
    examples: Mapping[str, np.ndarray], limits: Mapping[str, tuple[float, float] | None]
) -> None:
    for name, fixed in limits.items():
        if fixed is None:
            continue
        low, high = fixed
        outside = float(np.mean((examples[name] < low) | (examples[name] > high)))
        if outside > _TOLERATED_OUTSIDE:
            warnings.warn(
                problem(
                    f"input_range={fixed} for the input {name!r}, with {outside:.1%} of the "
                    "representative_data outside of it",
                    "a range that holds the inputs: others are clipped to it",
                    "widen the range, scale the data, or leave input_range out",
                ),
                stacklevel=3,
            )


def _in_float32(layer: Any) -> list[Any]:
    """The plain layers of a layer, in the precision in which quantization can be imitated."""
    return [
        replace(record, config={**record.config, "dtype": "float32"})
        if "float" in str(record.config.get("dtype"))
        else record
        for record in dismantle(layer)
    ]


def _graph_in_tf_keras(student: Any) -> graphs.Graph:
    # A pruned student must not be copied: the copy has no trained masks.
    return graphs.read(to_tf_keras(student) if is_keras_model(student) else student)


def _checked_bits(name: str, bits: Any) -> int:
    fix = f"pass {name}=8"
    bits = check_integer(name, bits, at_least=2, fix=fix)
    if bits > 8:
        raise ValueError(problem(f"{name}={bits}", "2 to 8 bits, which TF-MOT can imitate", fix))
    return bits


def _checked_ranges(
    input_range: InputRange, names: list[str]
) -> dict[str, tuple[float, float] | None]:
    """The range of each input by name; None where it is measured."""
    if input_range is None:
        return dict.fromkeys(names)
    if not isinstance(input_range, Mapping):
        input_range = dict.fromkeys(names, input_range)
    unknown = set(input_range) - set(names)
    if unknown:
        raise ValueError(
            problem(
                f"input_range for the inputs {sorted(unknown)}",
                f"names out of {names}",
                "use the names of the student's inputs",
            )
        )
    return {name: _checked_range(input_range.get(name)) for name in names}


def _checked_range(limits: Any) -> tuple[float, float] | None:
    if limits is None:
        return None
    fix = "pass input_range=(0, 1) for pixels of 0 to 1"
    if not isinstance(limits, tuple | list) or len(limits) != 2:
        raise TypeError(problem(f"input_range={limits!r}", "two numbers (from, to)", fix))
    low, high = (check_number("input_range", number, fix=fix) for number in limits)
    if not low <= 0 <= high or low == high:
        raise ValueError(
            problem(
                f"input_range={limits!r}",
                "a range that holds zero, which padding needs, and more than zero",
                fix,
            )
        )
    return low, high
