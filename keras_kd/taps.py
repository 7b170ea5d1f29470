"""From layer names to the outputs of these layers, in the model's own forward pass."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, NamedTuple

import keras

from keras_kd import _attention, _backends, _graphs, _keras
from keras_kd._checks import problem
from keras_kd._masks import MaskTrail, pairs_that_count


class Tapped(NamedTuple):
    """What one forward pass gave.

    Attributes:
        outputs: the model's outputs, in the model's own structure.
        features: the outputs of the named layers.
    """

    outputs: Any
    features: dict[str, Any]


class Tap:
    """Calls a model and returns the outputs of named layers with its own, from one forward pass.

    Args:
        model: a model of either Keras, with a graph or subclassed.
        layer_names: the layers to read, see `find_layer`. Behind a colon stands what to read of a
            layer: "lstm:1" is the second of several outputs; "attention:scores" are the scores of
            an attention layer before its softmax, of shape `(batch, heads, queries, keys)`, and
            "attention:probabilities" those behind it.
        follow_masks: whether to leave on outputs and features the masks that Keras drops on the
            way, for `_masks.mask_or_lost`.

    Raises:
        ValueError: if a layer does not exist, or is no attention layer whose scores are needed.
    """

    def __init__(
        self, model: Any, layer_names: Sequence[str] = (), *, follow_masks: bool = False
    ) -> None:
        self.model = model
        self._readings = {name: _reading(model, name) for name in dict.fromkeys(layer_names)}
        self._follow_masks = follow_masks

    @property
    def layers(self) -> dict[str, Any]:
        """The layers that are read, by the names that were given."""
        return {name: reading.layer for name, reading in self._readings.items()}

    def __call__(self, inputs: Any, training: bool) -> Tapped:
        """One forward pass.

        Raises:
            ValueError: if a named layer was not called exactly once, or has several outputs and
                none of them is named.
        """
        if not self._readings and not self._follow_masks:
            return Tapped(_single_output(self.model(inputs, training=training)), {})
        trail = MaskTrail() if self._follow_masks else None
        with _listening(self.model, self._readings, trail) as passes:
            outputs = _single_output(self.model(inputs, training=training))
            # A model that was not built yet has been called once more, to build it.
            features = self._features(passes[-1])
        if trail is not None:
            trail.mark((outputs, features))
        return Tapped(outputs, features)

    def shapes(self) -> Tapped | None:
        """Outputs and features as tensors without values; `None` where they are unknown.

        Raises:
            ValueError: as in a forward pass.
        """
        if getattr(self.model, "inputs", None) is not None:
            outputs = _single_output(_graphs.symbolic_outputs(self.model))
            return Tapped(outputs, self._features_of_graph())
        with _listening(self.model, self._readings) as passes:
            outputs = _graphs.output_specs(self.model)
        if outputs is None:
            return None
        features = {
            name: _common_shape([self._single(name, one[name]) for one in passes])
            for name in self._readings
        }
        return Tapped(_single_output(outputs), features)

    def _features_of_graph(self) -> dict[str, Any]:
        symbolic = {
            name: None if one.of_attention else _graphs.output_in_graph(self.model, one.layer)
            for name, one in self._readings.items()
        }
        if all(output is not None for output in symbolic.values()):
            return {name: self._readings[name].chosen(one) for name, one in symbolic.items()}

        def run(inputs: Any) -> dict[str, Any]:
            with _listening(self.model, self._readings) as passes:
                self.model(inputs, training=False)
                return self._features(passes[-1])

        features = _graphs.trace(run, _graphs.symbolic_inputs(self.model))
        return {
            # The graph records where a tensor comes from.
            name: self._readings[name].chosen(symbolic[name])
            if symbolic[name] is not None
            else _common_shape([feature])
            for name, feature in features.items()
        }

    def _features(self, calls: dict[str, list[Any]]) -> dict[str, Any]:
        features = {name: self._single(name, one) for name, one in calls.items()}
        for name, feature in features.items():
            if _graphs.is_out_of_reach(feature):
                raise problem(
                    f"the layer {name!r} of model {self.model.name!r}, which runs in a loop",
                    "a layer that is called once in a forward pass",
                    "name the layer in which the loop is",
                )
        return features

    def _single(self, name: str, calls: list[Any]) -> Any:
        if len(calls) == 1:
            return self._readings[name].chosen(calls[0])
        raise problem(
            f"the layer {name!r} of model {self.model.name!r}, which was called {len(calls)} "
            "times in one forward pass",
            "a layer that is called once",
            "name a layer that each input passes once, for instance the one behind it",
        )


def _single_output(outputs: Any) -> Any:
    """The outputs; a list of one, as models in files of Keras 2 have it, is that one."""
    is_one = isinstance(outputs, list | tuple) and len(outputs) == 1
    return outputs[0] if is_one else outputs


class _Reading(NamedTuple):
    """What is read of a layer.

    Attributes:
        name: as it was given.
        layer: the layer whose outputs are recorded.
        what: the index of one of its outputs, "scores" or "probabilities"; `None` for its only
            output.
    """

    name: str
    layer: Any
    what: int | str | None

    @property
    def of_attention(self) -> bool:
        """Whether it is what an attention layer computes inside."""
        return self.what in _OF_ATTENTION

    @property
    def layer_name(self) -> str:
        """The name without what is read."""
        return self.name if self.what is None else self.name.rpartition(":")[0]

    def chosen(self, result: Any) -> Any:
        """Of what one call gave, that which is meant.

        Raises:
            ValueError: if there are several outputs and none is named, or no such output.
        """
        outputs = keras.tree.flatten(result)
        index = self.what if isinstance(self.what, int) else 0
        if index >= len(outputs) or (self.what is None and len(outputs) > 1):
            listed = [
                f"{self.layer_name}:{index} of shape {tuple(output.shape)}"
                for index, output in enumerate(outputs)
            ]
            is_attention = _attention.attention_in(self.layer) is not None
            raise problem(
                f"the layer name {self.name!r} for a layer with {len(outputs)} outputs",
                f"the name of one of them: {', '.join(listed)}",
                f"write {self.layer_name + ':0'!r} for the first"
                + (
                    ", or compare attention with keras_kd.losses.AttentionScores"
                    if is_attention
                    else ""
                ),
            )
        if self.what == 1 and _attention.attention_in(self.layer) is not None:
            _attention.mark_attention_scores(outputs[index])
        return outputs[index]


_OF_ATTENTION = ("scores", "probabilities")


def _reading(model: Any, name: str) -> _Reading:
    layer = _find(model, name)
    parts = name.split("/")
    for around in ("/".join(parts[:count]) for count in range(1, len(parts))):
        if _graphs.is_loop(_find(model, around)):
            raise problem(
                f"the layer {name!r} of model {model.name!r}, which runs in a loop",
                "a layer that is called once in a forward pass",
                f"name {around!r}, the layer around it",
            )
    base, _, what = name.rpartition(":")
    if layer is not None or not base or not (what.isdigit() or what in _OF_ATTENTION):
        return _Reading(name, layer or find_layer(model, name), None)
    layer = find_layer(model, base)
    if what.isdigit():
        return _Reading(name, layer, int(what))
    attention = _attention.attention_in(layer)
    if attention is None:
        known = _attention_paths(model)
        raise problem(
            f"the layer {base!r} of model {model.name!r} ({type(layer).__name__}) for "
            f"attention {what}",
            "an attention layer such as keras.layers.MultiHeadAttention",
            f"name one of {', '.join(known)}" if known else "take a loss on other features",
        )
    return _Reading(name, attention, what)


@contextmanager
def _listening(
    model: Any, readings: dict[str, _Reading], trail: MaskTrail | None = None
) -> Iterator[list[dict[str, list[Any]]]]:
    """Within this context note what the layers return, by name, anew for each call of the model.

    A model with more outputs would do for graphs, but not for layers of nested models, nor for
    subclassed models, and building it would leave its traces in the user's model.

    Args:
        model: the model.
        readings: what to read, by name.
        trail: follows the masks in the same pass.
    """
    passes: list[dict[str, list[Any]]] = []

    def counting(call: Any) -> Any:
        def counted_call(*args: Any, **kwargs: Any) -> Any:
            passes.append({name: [] for name in readings})
            if trail is not None:
                trail.begin((args, kwargs))
            return call(*args, **kwargs)

        return counted_call

    def noting(name: str) -> Any:
        def replacement(call: Any) -> Any:
            @wraps(call)
            def noted_call(*args: Any, **kwargs: Any) -> Any:
                result = call(*args, **kwargs)
                passes[-1][name].append(result)
                return result

            return noted_call

        return replacement

    replacements = [(model, "call", counting)]
    for name, reading in readings.items():
        if reading.of_attention:
            replacements += _listening_to_attention(reading, trail, passes)
        else:
            replacements.append((reading.layer, "call", noting(name)))
    with ExitStack() as stack:
        stack.enter_context(_keras.replaced_attributes(replacements))
        if trail is not None:
            stack.enter_context(trail.listening(model))
        yield passes


def _listening_to_attention(
    reading: _Reading, trail: MaskTrail | None, passes: list[dict[str, list[Any]]]
) -> list[tuple[Any, str, Any]]:
    """Replacements of methods of an attention layer that note what it computes inside."""
    layer = reading.layer
    tokens: list[Any] = []

    @_backends.without_autograph
    def note_tokens(call: Any, args: Any, kwargs: Any) -> None:
        given = inspect.signature(call).bind(*args, **kwargs).arguments
        query = given.get("query", next(iter(given.values())))
        key = given.get("key")
        key = given.get("value", query) if key is None else key
        tokens[:] = [None if trail is None else trail.mask(one) for one in (query, key)]

    @_backends.without_autograph
    def note_attention(args: Any, kwargs: Any) -> None:
        attention = _attention.attention_of_call(layer, args, kwargs)
        scores = attention.scores if reading.what == "scores" else attention.probabilities
        if trail is not None:
            trail.note(scores, pairs_that_count(attention.mask, *tokens))
        passes[-1][reading.name].append(scores)

    def called(call: Any) -> Any:
        @wraps(call)
        def noted_call(*args: Any, **kwargs: Any) -> Any:
            note_tokens(call, args, kwargs)
            return call(*args, **kwargs)

        return noted_call

    def attending(compute: Any) -> Any:
        @wraps(compute)
        def noted_compute(*args: Any, **kwargs: Any) -> Any:
            note_attention(args, kwargs)
            return compute(*args, **kwargs)

        return noted_compute

    return [(layer, "call", called), (layer, "_compute_attention", attending)]


def _common_shape(tensors: list[Any]) -> keras.KerasTensor:
    """The shape of tensors that Keras made from inputs of several sizes, to see which may vary."""
    sizes = zip(*(tensor.shape for tensor in tensors), strict=True)
    dtype = keras.backend.standardize_dtype(tensors[0].dtype)
    return keras.KerasTensor([size[0] if len(set(size)) == 1 else None for size in sizes], dtype)


def find_layer(model: Any, name: str) -> Any:
    """The layer of `model` called `name`, also where a wrapper or the bridge renamed it.

    "backbone/block3" is the layer "block3" of the nested model "backbone", or of a layer of that
    name that is made of others; where the bridge has flattened the model, the layer that became of
    it.

    Raises:
        ValueError: if there is none; the message lists the layers.
    """
    layer = _find(model, name)
    if layer is not None:
        return layer
    container, _, _ = name.rpartition("/")
    around = _find(model, container) if container else None
    known = [] if around is None else _paths(around, f"{container}/")
    raise problem(
        f"layer name {name!r} for model {model.name!r}",
        f"one of its layers: {', '.join(known or _paths(model))}",
        "correct the name or give the layer that name",
    )


def _find(container: Any, name: str) -> Any:
    layers = _inner_layers(container)
    first, _, rest = name.partition("/")
    for candidate in dict.fromkeys([name, first]):
        exact = [layer for layer in layers if layer.name == candidate]
        renamed = [layer for layer in layers if _keras.original_name(layer.name) == candidate]
        found = exact or (renamed if len(renamed) == 1 else [])
        if found and candidate == name:
            return found[0]
        if found:
            return _find(found[0], rest)
    if not rest or any(_keras.is_model(layer) for layer in layers):
        return None
    # The bridge flattens nested models: a layer keeps its name, or gets the model's in front.
    return _find(container, f"{first}_{rest}") or _find(container, rest)


def _inner_layers(container: Any) -> list[Any]:
    """The layers right inside a model, or inside a layer made of others."""
    container = _keras.unwrapped(container)
    if _keras.is_model(container):
        return list(container.layers)
    return list(container._flatten_layers(recursive=False, include_self=False))


def _paths(container: Any, prefix: str = "") -> list[str]:
    paths = []
    for layer in _inner_layers(container):
        path = prefix + _keras.original_name(layer.name)
        paths.append(path)
        if _keras.is_model(layer):
            paths += _paths(layer, f"{path}/")
    return paths


def _attention_paths(container: Any, prefix: str = "") -> list[str]:
    """The names of all attention layers, however deep."""
    paths = []
    for layer in _inner_layers(container):
        path = prefix + _keras.original_name(layer.name)
        is_attention = _attention.attention_in(layer) is not None
        paths += [path] if is_attention else _attention_paths(layer, f"{path}/")
    return paths
