"""Which layers of a student an operator of its file came from.

The converter names tensors after TensorFlow's operations, merges several into one operator, and
gives outputs a name of its own. TensorFlow in turn numbers the scopes of layers in ways that cannot
be read back: "conv_1" may be the layer "conv" or the layer "conv_1".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from keras_kd._keras import original_name, replaced_attributes
from keras_kd.tflite.student import Signature, layers_of


@dataclass(frozen=True)
class LayerNames:
    """The way from names in a file to names of layers.

    Attributes:
        scopes: by TensorFlow's scope the layer that opened it, as the path from the outermost of
            nested models: ("backbone", "conv").
        outputs: by name of an output the operation that computes it.
    """

    scopes: Mapping[str, tuple[str, ...]]
    outputs: Mapping[str, str]

    def behind(self, tensor_names: Iterable[str]) -> list[str]:
        """The paths of the layers that the named tensors came from, "backbone/conv", sorted."""
        operations = [name for names in tensor_names for name in names.split(";")]
        paths = {self._path(operation) for operation in operations}
        return sorted("/".join(path) for path in paths if path)

    def _path(self, operation: str) -> tuple[str, ...]:
        scope = operation
        while scope and scope not in self.scopes:
            scope = scope.rpartition("/")[0]
        return self.scopes.get(scope, ())


def layer_names(signature: Signature) -> LayerNames:
    """Trace a student once more, as for the file, and note in which scope each layer runs."""
    import tensorflow as tf

    scopes: dict[str, tuple[str, ...]] = {}
    outputs: dict[str, str] = {}
    path: list[str] = []

    def noting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted_call(*args: Any, **kwargs: Any) -> Any:
            path.append(name)
            scopes[tf.compat.v1.get_default_graph().get_name_scope()] = tuple(path)
            try:
                return call(*args, **kwargs)
            finally:
                path.pop()

        return noted_call

    def traced(**inputs: Any) -> dict[str, Any]:
        results = signature(inputs)
        outputs.update({name: tensor.op.name for name, tensor in results.items()})
        return results

    specs = {
        tensor.name: tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name)
        for tensor in signature.inputs
    }
    # A layer of several nested models is listed several times.
    layers = {id(layer): layer for layer in layers_of(signature.model)}.values()
    with replaced_attributes(
        [(layer, "call", partial(noting, original_name(layer.name))) for layer in layers]
    ):
        tf.function(traced, autograph=False).get_concrete_function(**specs)
    return LayerNames(scopes, outputs)


def in_layers(signature: Signature, tensor_names: Iterable[str]) -> str:
    """The layers that the named tensors came from, as " in the layer 'conv'"; "" if unknown."""
    names = list(dict.fromkeys(tensor_names))
    try:
        layers = layer_names(signature).behind(names) if names else []
    except Exception:  # What cannot be traced a second time has no names.
        layers = []
    if not layers and any(name.endswith("NotEqual") for name in names):
        # Keras computes the mask of a Masking outside of the scope of the layer.
        kinds = ((layer.name, type(layer).__name__) for layer in layers_of(signature.model))
        layers = [name for name, kind in kinds if kind == "Masking"]
    return f" in the layer {', '.join(map(repr, layers))}" if layers else ""
