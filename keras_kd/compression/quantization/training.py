"""Quantization-aware training: the student learns with the rounding errors of its integers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_kd._checks import check_flag, check_integer, problem
from keras_kd._graphs import loops_over_time
from keras_kd._keras import check_model, is_keras_model, tf_keras
from keras_kd._representative import InputRange, checked_ranges, representative_examples
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.rebuilding import rebuild, to_tf_keras
from keras_kd.compression.families import check_state
from keras_kd.compression.quantization.placement import supports
from keras_kd.compression.selection import Selection, select
from keras_kd.compression.stripping import dismantle


def quantize_aware(
    student: Any,
    representative_data: Any = None,
    *,
    layers: Selection = None,
    skip: Selection = None,
    per_channel: bool = True,
    weight_bits: int = 8,
    activation_bits: int = 8,
    input_range: InputRange = None,
    preserve_sparsity: bool = True,
    preserve_clusters: bool = True,
) -> Any:
    """Make a student that computes as if in integers while it trains (Jacob et al., 2018).

    Weights and activations are rounded as TFLite will round them, with the quantizers of TF-MOT.
    Layers without a quantizer in TF-MOT stay in float; `summary` lists them with the reason.
    Convert such a student to "int8" with `representative_data`, from which the converter then takes
    the missing ranges.

    A batch normalization after a convolution or a Dense layer is folded into it in the file, and
    nothing is rounded in between. Frozen layers stay frozen. Layers keep their own names behind
    the prefix "quant_". The student computes in float32.

    Args:
        student: a Sequential or Functional model of either Keras, plain, pruned or clustered; it
            is not changed.
        representative_data: inputs like those that the student is trained on, from which the ranges
            of activations are measured: an array, a dict of arrays by input name where there are
            several inputs, an iterable of batches of these, or for images the path of a directory
            or the name of a data set in TFDS, as for `tflite.convert`. Without it they begin at -6
            to 6 and follow slowly while the student trains, which costs accuracy in trainings of
            fewer than some thousand steps.
        layers: the layers that are quantized, by name, type or function; by default all that can
            be. What is not chosen stays in float while the student trains.
        skip: layers that stay in float, likewise.
        per_channel: whether each channel of a convolution has its own range. Dense and
            Conv2DTranspose kernels have one range in any case.
        weight_bits: 2 to 8. Up to 4 bits are stored as 4-bit integers, more as 8-bit integers,
            where fewer bits show after compression only. Depthwise and transposed convolutions,
            for which runtimes have no 4 bits, then keep 8, as in the form "int4".
        activation_bits: 2 to 8. TFLite computes with 8-bit integers: fewer than 5 bits can be
            trained but not converted, and 5 to 7 cost accuracy without a smaller file.
        input_range: the smallest and the largest number that the inputs can hold, such as (0, 1),
            fixed from now on; a dict by input name where there are several. By default it is the
            range of all inputs seen.
        preserve_sparsity: whether weights that are zero stay zero, so that pruning is not lost.
        preserve_clusters: whether weights of a clustered kernel that are equal stay equal. They
            then share the mean of their gradients. Both hold for layers in float too, except those
            that tf_keras does not have (custom layers, GroupQueryAttention).

    Returns:
        A functional `tf_keras.Model`; compile it before training. `load` reads it back from a
        file.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if the student is quantization-aware already, if no layer of it can be
            quantized, if one is a loop over time that no file of integers can be made of, or if an
            argument does not fit it.

    Example:
        ```python
        aware = compression.quantize_aware(student, x_train, input_range=(0, 1))
        print(compression.summary(aware))
        ```

    Reference: Benoit Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018.
    """
    check_model("student", student)
    weight_bits, activation_bits = (
        _checked_bits(name, bits)
        for name, bits in (("weight_bits", weight_bits), ("activation_bits", activation_bits))
    )
    check_flag("per_channel", per_channel)
    check_flag("preserve_sparsity", preserve_sparsity)
    check_flag("preserve_clusters", preserve_clusters)
    check_state(graphs.read(student), "quantize_aware")
    _check_loops(student)
    plain = rebuild(_graph_in_tf_keras(student), tf_keras(), _in_float32)
    graph = graphs.read(plain)
    own = graphs.read(student) if is_keras_model(student) else graph
    chosen = select(own, layers, skip, supports, "quantized")
    limits = _with_zero(checked_ranges(input_range, [spec.name for spec in graph.input_specs]))
    examples = None
    if representative_data is not None:
        examples = representative_examples(
            representative_data, model_inputs(plain), input_range=input_range, student=plain
        )

    from keras_kd.compression.quantization import _scheme

    scheme = _scheme.Scheme(
        weight_bits, activation_bits, per_channel, limits, preserve_sparsity, preserve_clusters
    )
    quantized = scheme.apply(graph, chosen)
    calibrate(quantized, examples)
    return quantized


def _check_loops(student: Any) -> None:
    """Refuse before the training what no file can be made of after it."""
    for layer in graphs.read(student).layers():
        if getattr(layer, "stateful", False) is True:
            raise problem(
                f"a student with the layer {layer.name!r} ({type(layer).__name__}) that has "
                "stateful=True",
                "layers that reset their state for each example: ranges are read from batches of "
                "any examples",
                "train it with stateful=False and unroll=True, and copy the weights afterwards, "
                "stateful.set_weights(keras_kd.compression.strip(trained).get_weights())",
            )
        if loops_over_time(layer):
            raise problem(
                f"a student with the layer {layer.name!r} ({type(layer).__name__}), a loop "
                "over time",
                "recurrent layers that convert to int8 after the training: TensorFlow's "
                "converter cannot calibrate this one",
                "build the student with unroll=True in this layer and copy the weights, "
                "new.set_weights(old.get_weights())",
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
        raise problem(f"{name}={bits}", "2 to 8 bits, which TF-MOT can simulate", fix)
    return bits


def _with_zero(
    ranges: Mapping[str, tuple[float, float] | None],
) -> Mapping[str, tuple[float, float] | None]:
    """The same ranges, if each of them holds zero."""
    for limits in ranges.values():
        if limits is not None and not limits[0] <= 0 <= limits[1]:
            raise problem(
                f"input_range=({limits[0]:g}, {limits[1]:g})",
                "a range that holds zero, which padding needs",
                "pass input_range=(0, 1) for pixels of 0 to 1",
            )
    return ranges


_BATCH = 64
_MOST_APART = 0.05


@dataclass
class ModelInput:
    """An input of a model: `keras_kd._examples.InputInfo`."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype
    is_quantized: bool = False


def model_inputs(model: Any) -> list[ModelInput]:
    """The inputs of a functional tf_keras model."""
    return [
        ModelInput(name, tuple(tensor.shape), np.dtype(tensor.dtype.name))
        for name, tensor in zip(model.input_names, model.inputs, strict=True)
    ]


def calibrate(model: Any, examples: Mapping[str, np.ndarray] | None) -> None:
    """Set the ranges of the weights, and those of activations as measured on `examples`.

    The model runs eagerly and in inference mode, so that neither dropout nor the statistics of a
    BatchNormalization play a part. Its activations are not rounded meanwhile, its weights are, and
    they do not change.

    Args:
        model: a quantization-aware `tf_keras.Model`.
        examples: arrays by input name, shaped (examples, ...); None to leave activations alone.

    Raises:
        ValueError: if the model computes NaN or infinity.
    """
    from keras_kd.compression.quantization._wrapper import quantize_layers, wrappers

    for wrapper in wrappers(model):
        for weight, quantizer, variables in wrapper.weight_quantizers:
            quantizer(weight, True, weights=variables)
    if examples is None:
        return
    recorder = _Recorder()
    with ExitStack() as stack:
        for owner, name, value in _stand_ins(quantize_layers(model), wrappers(model), recorder):
            stack.enter_context(_replaced(owner, name, value))
        for batch in _batches(examples, model):
            model(batch, training=False)
    recorder.assign()


def set_ranges_apart(model: Any) -> None:
    """Make the ranges of activations differ from one another, by up to a few percent.

    Some operators need their inputs in the range of their output, such as CONCATENATION: a file has
    a QUANTIZE before each input of another range. Right after `calibrate`, the range of a
    Concatenate is that of the largest of its inputs; after training it may be or not.

    Args:
        model: a quantization-aware `tf_keras.Model`, calibrated.
    """
    from keras_kd.compression.quantization._wrapper import quantize_layers, wrappers

    ranges = [layer.quantizer_vars for layer in quantize_layers(model) if not layer.has_fixed_range]
    for wrapper in wrappers(model):
        pairs = [pair for pair in (wrapper.between, wrapper.output_range) if pair is not None]
        ranges += [variables for _, variables in pairs]
        ranges += [each for activation in wrapper.activations for each in activation.ranges()]
    for number, variables in enumerate(ranges):
        factor = 1 + _MOST_APART * number / len(ranges)
        for end in ("min_var", "max_var"):
            variables[end].assign(factor * variables[end])


class _Recorder:
    """Replaces a quantizer: returns its input and records its range."""

    def __init__(self) -> None:
        self.ranges: dict[Any, tuple[Any, float, float]] = {}

    def __call__(self, inputs: Any, training: Any, weights: Mapping[str, Any], **_: Any) -> Any:
        key = weights["min_var"].ref()
        # Zero must be representable: padding and ReLU produce it.
        _, low, high = self.ranges.get(key, (None, 0.0, 0.0))
        low, high = np.minimum(low, np.min(inputs)), np.maximum(high, np.max(inputs))
        self.ranges[key] = (weights, low, high)
        return inputs

    def assign(self) -> None:
        for variables, low, high in self.ranges.values():
            if not (np.isfinite(low) and np.isfinite(high)):
                raise problem(
                    "representative_data on which the student computes NaN or infinity",
                    "finite activations",
                    "check the student's weights and the range of the data",
                )
            # A range without extent cannot be quantized.
            variables["min_var"].assign(low)
            variables["max_var"].assign(high if high > low else low + 1e-3)


def _stand_ins(
    quantize_layers: list[Any], wrappers: list[Any], recorder: _Recorder
) -> Iterator[tuple[Any, str, Any]]:
    """Each owner of a quantizer of activations, the attribute, and the replacement."""
    for layer in quantize_layers:
        if not layer.has_fixed_range:
            yield layer, "quantizer", recorder
    for wrapper in wrappers:
        for name in ("between", "output_range"):
            if getattr(wrapper, name) is not None:
                yield wrapper, name, (recorder, getattr(wrapper, name)[1])
        for activation in wrapper.activations:
            yield activation, "quantizer", recorder


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(owner, name)
    # Past Keras' own __setattr__, which would change what is put there.
    vars(owner)[name] = value
    try:
        yield
    finally:
        vars(owner)[name] = original


def _batches(examples: Mapping[str, np.ndarray], model: Any) -> Iterator[Any]:
    """Batches in the structure of the model's inputs."""
    count = len(next(iter(examples.values())))
    for start in range(0, count, _BATCH):
        flat = [
            keras.ops.convert_to_tensor(examples[name][start : start + _BATCH])
            for name in model.input_names
        ]
        yield keras.tree.pack_sequence_as(model._nested_inputs, flat)
