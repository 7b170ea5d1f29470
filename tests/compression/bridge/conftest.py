"""The same step of training in both Kerases, and how close the two come."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kd.compression import strip, to_tf_keras
from keras_kd.compression.bridge.graph import read
from keras_kd.compression.bridge.weights import weight_name


@dataclass(frozen=True)
class Step:
    """What one model does with one batch; `gradients` and `state` go by the weights' names."""

    inference: list[np.ndarray]
    training: list[np.ndarray]
    penalty: list[float]
    input_gradients: list[np.ndarray]
    gradients: dict[str, np.ndarray]
    state: dict[str, np.ndarray]


def steps(model: keras.Model, twin: Any, inputs: Any) -> tuple[Step, Step]:
    """One step with the loss `sum(random * outputs) + penalties` in each of the two.

    The gradients of the tf_keras model take the place of its weights, so that `strip` brings them
    to where Keras 3 has these weights.
    """
    own = step_of(model, inputs)
    inference, backward = _outputs(twin, inputs), _backward(twin, inputs)
    for weight, gradient in zip(twin.trainable_weights, backward[3], strict=True):
        weight.assign(gradient)
    others = named_weights(strip(twin))
    gradients = {name: np.asarray(w) for name, w in others.items() if w.trainable}
    return own, Step(inference, *backward[:3], gradients, _state(others))


def step_of(model: keras.Model, inputs: Any) -> Step:
    """The step of a Keras 3 model."""
    inference, backward = _outputs(model, inputs), _backward(model, inputs)
    weights = named_weights(model)
    by_weight = {id(w): g for w, g in zip(model.trainable_weights, backward[3], strict=True)}
    gradients = {name: by_weight[id(w)] for name, w in weights.items() if w.trainable}
    return Step(inference, *backward[:3], gradients, _state(weights))


def step_off_by_rounding(model: keras.Model, inputs: Any) -> Step:
    """The step with each number of the weights moved to a neighbour in float32.

    How far it is from the step itself is how exactly the step can be computed at all: an
    ill-conditioned model, such as one with a normalization of nearly equal numbers, turns another
    order of additions into a difference of that size. The inputs stay, since masks compare them.
    """
    generator = np.random.default_rng(3)
    kept = [np.array(weight) for weight in model.weights]
    for weight, value in zip(model.weights, kept, strict=True):
        if value.dtype == "float32":
            ends = generator.choice(np.float32([-np.inf, np.inf]), value.shape)
            weight.assign(np.nextafter(value, ends))
    try:
        return step_of(model, inputs)
    finally:
        for weight, value in zip(model.weights, kept, strict=True):
            weight.assign(value)


def named_weights(model: Any) -> dict[str, Any]:
    """The weights of a Keras 3 model by `layer/position/name`, without a counter behind."""
    graph = read(model)
    names = graph.names()
    return {
        f"{names[id(layer)]}/{position}/{weight_name(weight)}": weight
        for layer in graph.layers()
        for position, weight in enumerate(getattr(layer, "weights", ()))
    }


def check_round_trip(model: keras.Model, back: keras.Model, inputs: Any) -> None:
    """The weights that `strip` brings back are the same bit for bit, and as trainable."""
    ours, theirs = named_weights(model), named_weights(back)
    assert ours.keys() == theirs.keys()
    if not any(isinstance(layer, keras.Model) for layer in model.layers):
        # Flattening changes the order: Keras sorts layers by their depth in the whole model.
        assert _order(model, ours) == _order(back, theirs)
    for name, one in ours.items():
        other = theirs[name]
        assert (one.trainable, one.dtype) == (other.trainable, other.dtype), name
        if one.dtype != "string":
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other), err_msg=name)
    _far(_outputs(model, inputs), _outputs(back, inputs), 1e-6, 1.0)


def _order(model: keras.Model, named: dict[str, Any]) -> list[str]:
    """The names of the weights as `get_weights` lists them."""
    names = {id(weight): name for name, weight in named.items()}
    return [names[id(weight)] for weight in model.weights]


def compare(expected: Step, received: Step, tolerances: Mapping[str, float]) -> dict[str, float]:
    """The largest differences; raises where one exceeds its tolerance, relative as in `_far`."""
    largest = max(
        (float(np.max(np.abs(g), initial=0)) for g in expected.gradients.values()), default=0.0
    )
    # A bias of attention's keys, or before a BatchNormalization, has no gradient but what rounding
    # leaves.
    least = {"gradients": 0.1 * largest, "state": 1e-3}
    return {
        field.name: _far(
            getattr(expected, field.name),
            getattr(received, field.name),
            tolerances[field.name],
            least.get(field.name, 1.0),
        )
        for field in dataclasses.fields(Step)
    }


def _far(expected: Any, received: Any, tolerance: float, least: float) -> float:
    """The largest difference of two arrays as a part of the largest value, `least` or above."""
    if isinstance(expected, dict):
        assert expected.keys() == received.keys()
    else:
        expected, received = dict(enumerate(expected)), dict(enumerate(received))
        assert len(expected) == len(received)
    worst = 0.0
    for name, one in expected.items():
        one, other = (np.asarray(value, "float64") for value in (one, received[name]))
        assert one.shape == other.shape, name
        np.testing.assert_array_equal(np.isnan(one), np.isnan(other), err_msg=str(name))
        scale = max(least, float(np.nanmax(np.abs(one), initial=0.0)), 1e-30)
        difference = float(np.nanmax(np.abs(one - other), initial=0.0)) / scale
        assert difference <= tolerance, f"{name}: {difference:.2e} of {scale:.2e}"
        worst = max(worst, difference)
    return worst


def _outputs(model: Any, inputs: Any, training: bool = False) -> list[np.ndarray]:
    return [np.asarray(value) for value in keras.tree.flatten(model(inputs, training=training))]


def _backward(
    model: Any, inputs: Any
) -> tuple[list[np.ndarray], list[float], list[Any], list[Any]]:
    """Outputs, penalty, gradients with respect to the inputs and to the trainable weights."""
    generator = np.random.default_rng(0)
    inputs = keras.tree.map_structure(tf.convert_to_tensor, inputs)
    sources = [tensor for tensor in keras.tree.flatten(inputs) if tensor.dtype.is_floating]
    weights = [w.value if isinstance(w, keras.Variable) else w for w in model.trainable_weights]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        outputs = keras.tree.flatten(model(inputs, training=True))
        penalties = [tf.cast(tf.reduce_sum(loss), "float64") for loss in model.losses]
        penalty = tf.add_n(penalties) if penalties else tf.constant(0.0, "float64")
        total = penalty
        for output in outputs:
            if output.dtype.is_floating:
                weighted = tf.cast(output, "float64") * generator.normal(size=output.shape)
                total += tf.reduce_sum(weighted)
    gradients = tape.gradient(total, [*sources, *weights])
    dense = [
        np.zeros(source.shape) if gradient is None else np.asarray(tf.convert_to_tensor(gradient))
        for source, gradient in zip([*sources, *weights], gradients, strict=True)
    ]
    values = [np.asarray(tf.cast(output, "float64")) if output.dtype.is_floating else
              np.asarray(output) for output in outputs]  # fmt: skip
    return values, [float(penalty)], dense[: len(sources)], dense[len(sources) :]


def _state(weights: dict[str, Any]) -> dict[str, np.ndarray]:
    return {
        name: np.asarray(weight)
        for name, weight in weights.items()
        if not weight.trainable and "seed_generator" not in weight.path
    }


@pytest.fixture(scope="session")
def assert_same_step():
    """Rebuild a model, bring it back, take a step in both Kerases; returns the differences."""

    def check(model, inputs, tolerance=1e-5, gradient_tolerance=None, any_conditioning=False):
        twin = to_tf_keras(model)
        check_round_trip(model, strip(twin), inputs)
        tolerances = dict.fromkeys((field.name for field in dataclasses.fields(Step)), tolerance)
        tolerances["gradients"] = gradient_tolerance or tolerance
        moved = step_off_by_rounding(model, inputs) if any_conditioning else None
        expected, received = steps(model, twin, inputs)
        if moved is not None:
            changes = compare(expected, moved, dict.fromkeys(tolerances, np.inf))
            tolerances = {name: max(least, changes[name]) for name, least in tolerances.items()}
        return compare(expected, received, tolerances)

    return check
