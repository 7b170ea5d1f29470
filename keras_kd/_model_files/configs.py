"""What the config of a Keras model from anywhere may name.

A config names classes and functions, and Keras makes or calls them while it builds the model. Only
those that compute numbers from numbers are let in, and what the user gave. A name is looked up in
every place in which Keras might look; all that is found there must be allowed.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras

from keras_kd._memory import check_expansion
from keras_kd._model_files.stored import ConfigError

# Public modules, and the base of the classes that are taken of each.
_CLASSES = {
    "keras.layers": "Layer",
    "keras.initializers": "Initializer",
    "keras.regularizers": "Regularizer",
    "keras.constraints": "Constraint",
    "keras.metrics": "Metric",
    "keras.losses": "Loss",
    "keras.optimizers": None,
    "keras.optimizers.schedules": "LearningRateSchedule",
    "keras.dtype_policies": "DTypePolicy",
    "keras.quantizers": None,
}
# Families whose members Keras also finds by name alone, and the public functions of each.
_FAMILIES = (
    "activations",
    "initializers",
    "regularizers",
    "constraints",
    "metrics",
    "losses",
    "optimizers",
    "dtype_policies",
    "quantizers",
)
_FUNCTIONS = ("keras.activations", "keras.metrics", "keras.losses")
# They make an object of any config, which is what is being checked here.
_READERS = ("get", "serialize", "deserialize")

# Parameters of layers and operations that take a function, a module or a path. What has one is not
# let in: Lambda, TFSMLayer, TorchModuleWrapper, JaxLayer, FlaxLayer, the operation behind
# keras.ops.cond, and similar ones in a later Keras.
_RUNS = re.compile(
    r"f|(.+_)?(fn|fun|func|function|body|cond|branches|module|path|filepath|file|filename"
    r"|dir|directory|url)"
)
# Layers read the file that one of these arguments names, if it is a string.
_MAY_BE_FILES = ("vocabulary", "idf_weights")

# `keras.ops` are functions; a config has the classes behind them, which are not public.
_OPERATIONS = (
    "keras.src.activations.activations",
    "keras.src.ops.einops",
    "keras.src.ops.image",
    "keras.src.ops.linalg",
    "keras.src.ops.math",
    "keras.src.ops.nn",
    "keras.src.ops.numpy",
)
_CORE_OPERATIONS = (
    "Cast",
    "ConvertToTensor",
    "SaturateCast",
    "Scatter",
    "ScatterUpdate",
    "Slice",
    "SliceUpdate",
    "StopGradient",
    "Unstack",
)
_PLACES = ("keras.src.layers.", "keras.src.ops.", "keras.src.activations.")
# Layers that Keras itself builds models of, but does not export.
_LAYERS_OF_MODELS = ("keras.src.applications.", "keras.src.legacy.layers")

# Arrays, whose type NumPy would read: "(10000,10000)f4" is one for it.
_ARRAYS = ("__numpy__", "__tensor__")
_NUMBERS = re.compile(r"bool|u?int\d{1,2}|b?float\d{1,2}(_e\dm\d\w*)?|complex\d{2,3}")

_VALUES = (
    "__bytes__",
    "__ellipsis__",
    "__keras_tensor__",
    "__slice__",
)
# Values in an .h5 only, where they have "items" in the place of a config.
_VALUES_OF_HDF5 = ("__tuple__", "TensorShape")
# What is registered by this package, but is no part of a student.
_HOLDERS = ("keras_kd.distiller", "keras_kd.teachers")
# Keras imports modules of these packages, if a config names them.
_PACKAGES = ("keras", "keras_cv", "keras_hub", "keras_nlp")

_OWN_CODE = (
    "name the Python file or module that defines them, for example --custom-objects layers.py; it "
    "is imported, so that what is in it runs: name only code that you trust"
)
_IN_PYTHON = (
    "if you trust the file, load it in Python with keras.saving.load_model and call "
    "keras_kd.tflite.convert there"
)


class OtherKerasError(ConfigError):
    """A config that names a part of Keras that the installed version does not have."""


def check_config(config: Any, custom_objects: Mapping[str, Any]) -> None:
    """Refuse a config that names anything but parts of Keras that only compute.

    Args:
        config: what a file contains of its model, as read from JSON, before Keras has seen it.
        custom_objects: the user's own classes and functions, which may be named, too. So may those
            that the user's code has registered with Keras.

    Raises:
        ConfigError: with the layer, what it names and the fix.
    """
    # By a list and not by recursion: a file may be nested deeper than Python's stack.
    pending = [(config, "")]
    while pending:
        value, layer = pending.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                layer = _name_of_layer(value) or layer
                _check_object(value, f"its layer {layer!r}" if layer else "it", custom_objects)
            _check_nodes(value, layer)
            pending.extend((item, layer) for item in value.values())
        elif isinstance(value, list):
            pending.extend((item, layer) for item in value)


def _check_nodes(value: dict[str, Any], layer: str) -> None:
    """Refuse calls on nothing but constants: Keras would run them at any cost."""
    nodes = value.get("inbound_nodes")
    for node in nodes if isinstance(nodes, list) else ():
        if isinstance(node, dict) and not _has_tensor(node):
            raise ConfigError(f"its layer {layer!r} is called on constants alone", "", _damaged())


def _has_tensor(node: Any) -> bool:
    pending = [node]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if value.get("class_name") == "__keras_tensor__":
                return True
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return False


def _name_of_layer(value: dict[str, Any]) -> str:
    inner = value.get("config")
    name = inner.get("name") if isinstance(inner, dict) else None
    name = value.get("name", name)
    # A file may have a name of any length.
    return name[:60] if isinstance(name, str) else ""


def _check_object(value: dict[str, Any], where: str, custom_objects: Mapping[str, Any]) -> None:
    class_name = value["class_name"]
    others = (value.get("module"), value.get("registered_name"))
    if not isinstance(class_name, str) or not all(isinstance(x, str | None) for x in others):
        raise ConfigError(f"{where} has a class that is no name", "", _damaged())
    if class_name in _ARRAYS:
        arguments = value.get("config")
        dtype = arguments.get("dtype") if isinstance(arguments, dict) else None
        if not isinstance(dtype, str) or _NUMBERS.fullmatch(dtype) is None:
            raise ConfigError(f"{where} has a constant that is not numbers", "", _damaged())
        return
    if class_name in _VALUES or (class_name in _VALUES_OF_HDF5 and "config" not in value):
        return
    if class_name == "__lambda__":
        raise _code(f"{where} has the code of a lambda")
    names = {class_name, value.get("registered_name") or class_name}
    if class_name == "function":
        if not isinstance(value.get("config"), str):
            raise ConfigError(f"{where} has a function that is no name", "", _damaged())
        names.add(value["config"])
    _check_module(value, where)
    given = {name: _of_user(name, custom_objects) for name in sorted(names)}
    known = any(found is not None for found in given.values())
    for name, of_user in given.items():
        for found in _found(name, value, of_user is not None):
            # A class of the user's may be found by its module as well.
            if all(found is not x for x in given.values()):
                _check_allowed(found, name, value, where, custom_objects)
            known = True
    if not known and not _is_function_of_old_keras(value, custom_objects):
        raise _unknown(value, where)
    _check_strings(value, where, custom_objects)


def _check_module(value: dict[str, Any], where: str) -> None:
    """Refuse a name for which Keras would import a module, even if Keras finds it elsewhere."""
    from keras.src import api_export

    module, name = value.get("module"), value["class_name"]
    name = value["config"] if name == "function" else name
    is_known = not module or module in sys.modules or module.split(".")[0] not in _PACKAGES
    if not is_known and api_export.get_symbol_from_name(f"{module}.{name}") is None:
        raise _unknown(value, where)


def _of_user(name: str, custom_objects: Mapping[str, Any]) -> Any:
    """What the user gave by a name, or has registered with Keras; None if there is nothing."""
    found = keras.saving.get_registered_object(name, custom_objects=dict(custom_objects))
    return None if _is_holder(found) else found


def _is_function_of_old_keras(value: dict[str, Any], custom_objects: Mapping[str, Any]) -> bool:
    """Keras up to 3.6 wrote "name" for a function that is registered as "package>name"."""
    registered = {**keras.saving.get_custom_objects(), **custom_objects}
    return value["class_name"] == "function" and any(
        key.endswith(f">{value['config']}") and not _is_holder(found)
        for key, found in registered.items()
    )


def _is_holder(found: Any) -> bool:
    """Whether it is a Distiller or a teacher, which hold paths and functions."""
    module = str(getattr(found, "__module__", ""))
    return module == "keras_kd" or module.startswith(_HOLDERS)


def _found(name: str, value: dict[str, Any], is_given: bool) -> Iterator[Any]:
    """What a name may represent, in every way in which Keras looks it up; nothing is imported."""
    from keras.src import api_export, layers

    module = value.get("module")
    modules = [f"keras.{family}" for family in _FAMILIES]
    if module and module.split(".")[0] in _PACKAGES:
        modules.append(module)
    for place in modules:
        yield from _some(api_export.get_symbol_from_name(f"{place}.{name}"))
        yield from _some(vars(sys.modules[place]).get(name) if place in sys.modules else None)
    for family in _FAMILIES:
        source = sys.modules[f"keras.src.{family}"]
        yield from _some(getattr(source, "ALL_OBJECTS_DICT", {}).get(name))
    is_of_hdf5 = "module" not in value or "__passive_serialization__" in value
    if is_of_hdf5 and not is_given:
        # Keras adds its models to this dictionary.
        models = {"Functional": keras.Model, "Model": keras.Model, "Sequential": keras.Sequential}
        yield from _some({**vars(layers), **models}.get(name))


def _some(found: Any) -> Iterator[Any]:
    if found is not None:
        yield found


def check_words(what: str, words: Iterable[Any]) -> None:
    """Refuse words that take far more memory in an array, in which each is as long as the longest.

    Raises:
        ValueError: if they do.
    """
    lengths = [len(str(word)) + 1 for word in words]
    check_expansion(what, 4 * len(lengths) * max(lengths, default=0), sum(lengths))


def _is_small(count: Any) -> bool:
    return not isinstance(count, int) or count <= 1_000_000


def _check_allowed(
    found: Any,
    name: str,
    value: dict[str, Any],
    where: str,
    custom_objects: Mapping[str, Any],
) -> None:
    arguments = value.get("config")
    arguments = arguments if isinstance(arguments, dict) else {}
    if id(found) in _allowed():
        for argument in _MAY_BE_FILES:
            if not isinstance(arguments.get(argument), list | None):
                raise ConfigError(
                    f"{where} reads its {argument} from a file that it names",
                    "without paths in it",
                    f"build the layer with the words themselves, {argument}=[...], and save the "
                    "model again",
                )
            check_words(f"{where} has a {argument} that", arguments.get(argument) or [])
        if not _is_small(arguments.get("num_oov_indices")):
            raise ConfigError(f"{where} has over a million num_oov_indices", "", _damaged())
        return
    if found is keras.layers.Lambda:
        if not _is_function_of_user(arguments.get("function"), custom_objects):
            raise _code(f"{where} is a Lambda, which runs any function")
        return
    if "Distiller" in name:
        raise _distiller(f"{where} is a Distiller")
    kind = "class" if inspect.isclass(found) else "function"
    raise ConfigError(
        f"{where} names the {kind} {name[:60]!r}, which may do more than compute",
        "of layers and functions that only compute",
        f"replace it by layers of Keras or by a layer class of your own (--custom-objects), or, "
        f"{_IN_PYTHON}",
    )


def _is_function_of_user(function: Any, custom_objects: Mapping[str, Any]) -> bool:
    if isinstance(function, dict) and function.get("class_name") == "function":
        function = function.get("config")
    return isinstance(function, str) and _of_user(function, custom_objects) is not None


def _check_strings(value: dict[str, Any], where: str, custom_objects: Mapping[str, Any]) -> None:
    """In an .h5, any argument of a layer that is called like a function becomes that function."""
    from keras.src import layers

    arguments = value.get("config")
    if not isinstance(arguments, dict):
        return
    # With its module, it is looked up nowhere else.
    named = {} if "module" in value else arguments
    for key, text in named.items():
        found = vars(layers).get(text) if isinstance(text, str) and key != "name" else None
        is_other = inspect.isfunction(found) and id(found) not in _allowed()
        if is_other and _of_user(text, custom_objects) is None:
            raise ConfigError(
                f"{where} names the function {text!r} as its {key}",
                "of layers and functions that only compute",
                "use a function of keras.activations",
            )
    if _of_user(value["class_name"], custom_objects) is None:
        _check_activations(arguments, where, custom_objects)


def _check_activations(
    arguments: dict[str, Any], where: str, custom_objects: Mapping[str, Any]
) -> None:
    """Name the function that is missing, where Keras would show the whole config."""
    for key in ("activation", "recurrent_activation"):
        text = arguments.get(key)
        if not isinstance(text, str) or _of_user(text, custom_objects) is not None:
            continue
        try:
            keras.activations.get(text)
        except ValueError as error:
            raise ConfigError(
                f"{where} names the {key} {text[:60]!r}, which is not of Keras",
                "and the code of its own functions",
                _OWN_CODE,
            ) from error


@functools.cache
def _allowed() -> frozenset[int]:
    """The identities of all classes and functions of Keras that may be named."""
    return frozenset(id(found) for found in _allowed_objects())


@functools.cache
def _names() -> frozenset[str]:
    return frozenset(found.__name__ for found in _allowed_objects())


def _allowed_objects() -> Iterator[Any]:
    from keras.src.ops import core
    from keras.src.ops.operation import Operation

    for name, base in _CLASSES.items():
        module = sys.modules[name]
        parent = getattr(module, base) if base else object
        for found in vars(module).values():
            is_kind = inspect.isclass(found) and issubclass(found, parent)
            if is_kind and (not issubclass(found, Operation) or _only_computes(found)):
                yield found
    for name in _FUNCTIONS:
        module = sys.modules[name]
        yield from (
            found
            for key, found in vars(module).items()
            if inspect.isfunction(found) and key not in _READERS
        )
    # The functional forms of layers; Input makes no tensor of a tensor.
    yield from (
        found
        for key, found in vars(keras.layers).items()
        if inspect.isfunction(found) and key not in (*_READERS, "Input")
    )
    for name, module in list(sys.modules.items()):
        if name in _OPERATIONS:
            yield from filter(_only_computes, _defined_in(module, Operation))
        elif name.startswith(_LAYERS_OF_MODELS):
            yield from _defined_in(module, keras.layers.Layer)
    yield from (getattr(core, name) for name in _CORE_OPERATIONS if hasattr(core, name))
    functional = sys.modules["keras.src.models.functional"].Functional
    yield from (keras.Model, keras.Sequential, functional)
    yield from (keras.random.SeedGenerator, keras.DTypePolicy)


def _defined_in(module: Any, base: type) -> Iterator[Any]:
    for found in vars(module).values():
        if inspect.isclass(found) and issubclass(found, base):
            yield from [found] if found.__module__ == module.__name__ else []


def _only_computes(found: type) -> bool:
    """Whether a layer or operation is defined with others and takes no function and no path."""
    parameters = {**inspect.signature(found).parameters, **inspect.signature(found.call).parameters}
    return found.__module__.startswith(_PLACES) and not any(map(_RUNS.fullmatch, parameters))


def _unknown(value: dict[str, Any], where: str) -> ConfigError:
    is_function = value["class_name"] == "function"
    name = f"{'function' if is_function else 'class'} {_quoted(value, is_function)}"
    origin = f"{value.get('module')} {value.get('registered_name')}"
    if "Distiller" in name or "keras_kd" in origin:
        return _distiller(f"{where} names the {name} of keras_kd")
    if origin.startswith(("keras.", "tf_keras.")):
        return OtherKerasError(
            f"{where} names the {name}, which Keras {keras.__version__} does not have",
            "",
            "load it with the version of Keras that wrote it, and save it with this one",
        )
    if "module" not in value and value["class_name"] in _names():
        return ConfigError(
            f"{where} is the operation {value['class_name']!r}, which Keras finds in no .h5",
            "",
            "save the model again, as .keras",
        )
    return ConfigError(
        f"{where} names the {name}, which is not of Keras",
        "and the code of its own classes",
        _OWN_CODE,
    )


def _quoted(value: dict[str, Any], is_function: bool) -> str:
    return repr(value["config" if is_function else "class_name"][:60])


def _distiller(reason: str) -> ConfigError:
    return ConfigError(reason, "", "save the student alone: distiller.student.save(...)")


def _code(reason: str) -> ConfigError:
    return ConfigError(
        reason,
        "without code in it",
        "replace Lambda layers by operations of keras.ops or by a layer class of your own "
        "(--custom-objects), or load it in Python and call keras_kd.tflite.convert there",
    )


def _damaged() -> str:
    return "copy it again, or save the model again, as .keras"
