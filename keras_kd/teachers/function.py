"""Functions as teachers: code that is no Keras model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_kd import _backends
from keras_kd._checks import one_line, problem
from keras_kd.taps import Tapped
from keras_kd.teachers.base import Teacher, plain_outputs


class _CallableTeacher(Teacher):
    """What both kinds of functions share: no layers, and a name."""

    def __init__(self, function: Callable[[Any], Any], name: str | None = None) -> None:
        if not callable(function):
            raise problem(
                f"function={function!r} of type {type(function).__name__}",
                "a function of the inputs",
                "pass the function itself, not what it returns",
                kind=TypeError,
            )
        self.function = function
        own = getattr(function, "name", None) or getattr(function, "__name__", None)
        self.name = name or (own if isinstance(own, str) else type(function).__name__)

    def tap(self, layer_names: Sequence[str]) -> None:
        """There is nothing to read.

        Raises:
            ValueError: if a layer is named.
        """
        if layer_names:
            raise problem(
                f"the layer names {list(layer_names)} for the teacher {self.name!r}, a function",
                "a model as the teacher, since functions have no layers",
                "use losses that compare outputs, or pass the model that the function calls",
            )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments.

        Raises:
            ValueError: if the function cannot be found again by its name.
        """
        config = _saved(self.function)
        if config is None:
            raise problem(
                f"the function {self.name!r} as a teacher to be saved",
                "a function registered with keras.saving.register_keras_serializable, or a "
                "distiller that is saved without its teacher",
                "build the Distiller with save_teacher=False and set distiller.teacher after "
                "loading",
            )
        return {"function": config, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> _CallableTeacher:
        """Rebuild the teacher from `get_config`."""
        function = keras.saving.deserialize_keras_object(config["function"])
        return cls(**{**config, "function": function})


@keras.saving.register_keras_serializable(package="keras_kd")
class Function(_CallableTeacher):
    """A function of tensors: `keras.ops` or TensorFlow code, a layer, a signature of a SavedModel.

    It is part of the compiled step. For code that TensorFlow cannot compile, see `NumpyFunction`.

    Args:
        function: takes the inputs and returns the outputs, a tensor or a list or dict of tensors;
            logits, or their softmax or sigmoid, computed by Keras or TensorFlow. A single
            output may come in a dict or list of one, as signatures give it.
        name: for messages; the function's own by default.

    Raises:
        TypeError: if it cannot be called.

    Example:
        >>> import numpy as np
        >>> teacher = Function(lambda x: 2.0 * x, name="double")
        >>> np.asarray(teacher(np.ones((1, 2)), None).outputs).tolist()
        [[2.0, 2.0]]
    """

    def __call__(self, inputs: Any, student: Tapped | None) -> Tapped:
        """What the function returns.

        Raises:
            ValueError: if that is not made of tensors.
        """
        try:
            returned = plain_outputs(self.function(inputs))
        except NotImplementedError as error:
            # So TensorFlow refuses to make an array of a tensor that has no value yet.
            raise problem(
                f"the teacher {self.name!r}, a function that takes arrays "
                f"({one_line(error)[:200]})",
                "a function of tensors",
                "wrap it: keras_kd.teachers.NumpyFunction(function, output_shape)",
            ) from error
        try:
            outputs = keras.tree.map_structure(_as_tensor, returned)
        except (TypeError, ValueError) as error:
            raise problem(
                f"{type(returned).__name__} from the teacher {self.name!r} ({one_line(error)})",
                "a tensor, or a list or dict of tensors",
                "return the outputs of the batch",
            ) from None
        alone = isinstance(outputs, dict | list | tuple) and len(outputs) == 1
        several = student is not None and isinstance(student.outputs, dict | list | tuple)
        return Tapped(keras.tree.flatten(outputs)[0] if alone and not several else outputs, {})


@keras.saving.register_keras_serializable(package="keras_kd")
class NumpyFunction(_CallableTeacher):
    """A function of NumPy arrays: a scikit-learn model, an ONNX session, a service.

    Python runs it in every step, so that a step is no faster than the function, and XLA cannot
    compile it (`jit_compile=False`).

    Args:
        function: takes the inputs as NumPy arrays and returns an array, or a list or dict of
            arrays. Give logits, or the logarithm of probabilities, say
            `lambda x: np.log(np.maximum(classifier.predict_proba(x), 1e-7))`: probabilities
            themselves are not recognised here.
        output_shape: the shape of one example's output, without the batch; `(10,)` for example.
            A list or dict of shapes where there are several outputs.
        dtype: what the outputs are converted to.
        name: for messages; the function's own by default.

    Raises:
        TypeError: if it cannot be called, or the shape is none.

    Example:
        >>> import numpy as np
        >>> teacher = NumpyFunction(lambda x: np.cumsum(x, axis=-1), output_shape=(3,))
        >>> np.asarray(teacher(np.ones((1, 3)), None).outputs).tolist()
        [[1.0, 2.0, 3.0]]
    """

    supports_jit = False

    def __init__(
        self,
        function: Callable[[Any], Any],
        output_shape: Any,
        *,
        dtype: str = "float32",
        name: str | None = None,
    ) -> None:
        super().__init__(function, name)
        self.dtype = keras.backend.standardize_dtype(dtype)
        # Lists of sizes come back from files.
        self._specs = _map_shapes(
            lambda shape: keras.KerasTensor((None, *shape), dtype=self.dtype), output_shape
        )
        self.output_shape = _map_shapes(list, output_shape)

    def shapes(self, student: Tapped | None) -> Tapped:
        """The outputs."""
        return Tapped(self._specs, {})

    def __call__(self, inputs: Any, student: Tapped | None) -> Tapped:
        """What the function returns."""
        specs = keras.tree.flatten(self._specs)
        flat = _backends.call_numpy(
            lambda *arrays: self._arrays(keras.tree.pack_sequence_as(inputs, arrays)),
            keras.tree.flatten(inputs),
            specs,
        )
        return Tapped(keras.tree.pack_sequence_as(self._specs, flat), {})

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "output_shape": self.output_shape, "dtype": self.dtype}

    def _arrays(self, inputs: Any) -> list[np.ndarray]:
        """The function's outputs, checked: TensorFlow does not check them."""
        returned = self.function(inputs)
        specs = keras.tree.flatten(self._specs)
        size = len(keras.tree.flatten(inputs)[0])
        arrays = [np.asarray(array, dtype=self.dtype) for array in keras.tree.flatten(returned)]
        expected = [(size, *spec.shape[1:]) for spec in specs]
        received = [array.shape for array in arrays]
        if len(received) == len(expected) and all(map(_same_size, received, expected)):
            return arrays
        raise problem(
            f"outputs of shapes {received} from the teacher {self.name!r}",
            f"{expected} for {size} examples",
            "correct output_shape, the shape of one example's output, or the function",
        )


def _saved(function: Callable[..., Any]) -> Any:
    """The configuration by which Keras finds a function again; `None` where it would not."""
    if getattr(function, "__name__", None) == "<lambda>":
        # Keras would write the code itself into the file, and refuse to read it.
        return None
    try:
        config = keras.saving.serialize_keras_object(function)
        return config if keras.saving.deserialize_keras_object(config) is function else None
    except Exception:
        # Keras raises errors of many types for what it cannot save.
        return None


def _as_tensor(value: Any) -> Any:
    if value is None or isinstance(value, str):
        raise TypeError(f"{value!r} is no tensor")
    return ops.convert_to_tensor(value)


def _same_size(received: tuple, expected: tuple) -> bool:
    return len(received) == len(expected) and all(
        wanted in (None, size) for size, wanted in zip(received, expected, strict=True)
    )


def _map_shapes(function: Callable[[Sequence[int]], Any], shapes: Any) -> Any:
    """Apply a function to every shape in a shape, or a list or dict of shapes."""
    if isinstance(shapes, dict):
        return {name: _map_shapes(function, shape) for name, shape in shapes.items()}
    if isinstance(shapes, list | tuple):
        if all(size is None or isinstance(size, int) for size in shapes):
            return function(shapes)
        return [_map_shapes(function, shape) for shape in shapes]
    raise problem(
        f"output_shape={shapes!r}",
        "the shape of one example's output, or a list or dict of shapes",
        "pass for example output_shape=(10,)",
        kind=TypeError,
    )
