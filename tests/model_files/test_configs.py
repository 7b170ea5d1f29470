"""What a config may name, and what happens to files that name anything else."""

import contextlib
import importlib
import inspect
import json
import random
import sys
import types
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers, ops
from keras.src import api_export
from keras.src.ops.operation import Operation
from keras.src.saving import serialization_lib
from keras.src.saving.object_registration import GLOBAL_CUSTOM_OBJECTS

from keras_kd._model_files import load_model
from keras_kd._model_files.configs import (
    _FAMILIES,
    ConfigError,
    _allowed,
    _allowed_objects,
    check_config,
)

FOREIGN = {"FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper"}
GALLERY = {
    "module": "keras.visualization",
    "class_name": "function",
    "config": "plot_image_gallery",
    "registered_name": "plot_image_gallery",
}


def named(class_name, module="keras.layers", registered_name=None, **config):
    return {
        "module": module,
        "class_name": class_name,
        "config": config,
        "registered_name": registered_name,
    }


def test_layers_of_keras_are_let_in_but_for_those_that_run_what_is_not_of_keras():
    found = {key: x for key, x in vars(layers).items() if inspect.isclass(x)}
    kinds = {key for key, kind in found.items() if issubclass(kind, layers.Layer)}
    assert {key for key in kinds if id(found[key]) not in _allowed()} == FOREIGN


def test_operations_of_keras_are_let_in_but_for_those_that_call_functions():
    kept_out = set()
    for name, module in list(sys.modules.items()):
        if name.startswith(("keras.src.ops.", "keras.src.activations.")):
            for kind in vars(module).values():
                if (
                    inspect.isclass(kind)
                    and kind.__module__ == name
                    and issubclass(kind, Operation)
                ):
                    kept_out |= set() if id(kind) in _allowed() else {kind.__name__}
    control = {"Cond", "ForiLoop", "Map", "Scan", "Switch", "VectorizedMap", "WhileLoop"}
    assert kept_out == control | {"AssociativeScan", "Function", "JVP", "Operation"}


@pytest.mark.parametrize("family", _FAMILIES)
def test_what_keras_finds_by_name_alone_is_let_in(family):
    found = importlib.import_module(f"keras.src.{family}").ALL_OBJECTS_DICT
    kept_out = {key for key, x in found.items() if id(x) not in _allowed()}
    assert kept_out <= {"LossFunctionWrapper"}


def test_nothing_that_is_let_in_takes_a_path_or_a_function_unseen():
    seen = {"MeanMetricWrapper": {"fn"}}  # It is named in the config, too, and checked there.
    words = ("path", "file", "url", "fn", "func", "function", "fun", "body", "module", "dir")
    for found in _allowed_objects():
        for called in (found, getattr(found, "call", found)):
            names = set(inspect.signature(called).parameters)
            names = {name for name in names if name.split("_")[-1] in words}
            assert names <= seen.get(found.__name__, set()), found


def of_many_layers():
    inputs = keras.Input((4, 4), name="steps")
    x = layers.TimeDistributed(layers.Dense(4, "swish", kernel_regularizer="l2"))(inputs)
    x = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(x)
    x = layers.RNN([layers.GRUCell(3), layers.LSTMCell(3)], return_sequences=True)(x)
    x = layers.MultiHeadAttention(2, 2)(x, x) + ops.sin(x)
    x = ops.concatenate([x[:, ::2, None], ops.cast(x[:, 1::2, None] > 0, "float32")], axis=-1)
    x = layers.Dropout(0.1, seed=3)(ops.relu(x))
    x = keras.activations.relu(x, negative_slope=0.1)
    x = layers.Conv2D(2, 1, dtype="mixed_float16", kernel_constraint="max_norm")(x)
    x = layers.SpectralNormalization(layers.Dense(2))(x)
    x = layers.PReLU(alpha_initializer=keras.initializers.Constant(0.2))(x)
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(2, activation="softmax")])
    inner.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 9)), "mse")
    return keras.Model(inputs, inner(layers.Flatten()(x)))


def of_parts_that_are_not_public():
    from keras.src.applications.convnext import LayerScale, StochasticDepth
    from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

    inputs = keras.Input((4,))
    x = StochasticDepth(0.1)(LayerScale(0.1, 4)(inputs))
    return keras.Model(inputs, CustomScaleLayer(0.5)([x, inputs]))


def of_quantized_layers():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.Dense(2)])
    model.quantize("int8")
    return model


def of_words():
    inputs = keras.Input((3,), dtype="string")
    return keras.Model(inputs, layers.StringLookup(vocabulary=["a", "b"])(inputs))


@pytest.mark.parametrize(
    "build", [of_many_layers, of_parts_that_are_not_public, of_quantized_layers, of_words]
)
def test_what_keras_saves_is_loaded(build, tmp_path):
    model = build()
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    if model.inputs[0].dtype != "string":
        x = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")
        np.testing.assert_allclose(loaded(x), model(x), rtol=1e-6)


@keras.saving.register_keras_serializable("test_configs")
class Registered(layers.Layer):
    def call(self, x):
        return 2 * x


class Own(layers.Layer):
    def __init__(self, activation, **options):
        super().__init__(**options)
        self.activation = keras.activations.get(activation)

    def call(self, x):
        return self.activation(x)

    def get_config(self):
        return {**super().get_config(), "activation": keras.activations.serialize(self.activation)}


def thrice(x):
    return 3 * x


@pytest.mark.parametrize("name", ["own.keras", "own.h5"])
def test_what_the_user_gives_or_has_registered_is_let_in(name, tmp_path):
    parts = [Registered(), Own(thrice), layers.Lambda(thrice)]
    keras.Sequential([keras.Input((2,)), *parts]).save(tmp_path / name)
    loaded = load_model(tmp_path / name, {"Own": Own, "thrice": thrice})
    np.testing.assert_array_equal(loaded(np.ones((1, 2))), [[18, 18]])
    for missing, given in (("Own", {"thrice": thrice}), ("thrice", {"Own": Own})):
        with pytest.raises(ValueError, match=rf"its layer '(own|lambda).*{missing}|is a Lambda"):
            load_model(tmp_path / name, given)


def test_an_operation_in_an_h5_which_keras_cannot_load(tmp_path):
    inputs = keras.Input((2,))
    keras.Model(inputs, ops.sin(inputs)).save(tmp_path / "model.h5")
    with pytest.raises(
        ValueError, match=r"its layer 'sin.*' is the operation 'Sin', .* as \.keras"
    ):
        load_model(tmp_path / "model.h5")


def test_what_the_user_gives_does_not_vouch_for_what_keras_has_by_the_same_name(tmp_path):
    given = {"Lambda": Own, "plot_image_gallery": thrice, "gallery>plot_image_gallery": thrice}
    for config in (named("Lambda", function="relu"), GALLERY):
        with pytest.raises(ValueError, match=r"is a Lambda|names the function"):
            check_config(config, given)
    check_config({"class_name": "Lambda", "config": {"name": "own", "activation": "relu"}}, given)
    check_config(named("Lambda", "layers_of_mine", activation="relu"), given)


def test_a_class_that_the_user_imported_from_a_package_that_keras_knows(monkeypatch):
    module = types.ModuleType("keras_hub.layers")
    module.Own = Own
    config = named("Own", "keras_hub.layers", "keras_hub>Own")
    with pytest.raises(ValueError, match=r"names the class 'Own'.* --custom-objects|of Keras"):
        check_config(config, {})
    monkeypatch.setitem(sys.modules, "keras_hub.layers", module)
    with pytest.raises(ValueError, match="names the class 'Own', which may do more"):
        check_config(config, {})
    check_config(config, {"keras_hub>Own": Own})


def test_functions_registered_by_keras_up_to_3_6():
    config = {**GALLERY, "module": "builtins", "config": "thrice"}
    check_config({**config, "registered_name": "function"}, {"package>thrice": thrice})
    with pytest.raises(ValueError, match="names the function 'thrice'"):
        check_config({**config, "registered_name": "function"}, {"package>other": thrice})


def test_a_distiller_and_what_it_holds_are_no_parts_of_a_student():
    from keras_kd import Distiller, losses, teachers

    for kind in (Distiller, teachers.StoredTeacher, teachers.ModelTeacher):
        name = f"keras_kd>{kind.__name__}"
        with pytest.raises(ValueError, match="keras_kd"):
            check_config(named(kind.__name__, kind.__module__, name), {})
    check_config(named("Hint", losses.Hint.__module__, "keras_kd>Hint"), {})


# A part of a layer's config or of its call that Keras makes objects of, wherever it stands.
ATTACKS = {
    "a function": GALLERY,
    "a function under a private name": {
        **GALLERY,
        "module": "keras.src.visualization.plot_image_gallery",
    },
    "a function as a class": {**GALLERY, "class_name": "plot_image_gallery", "config": {}},
    "a function with a dot": {**GALLERY, "module": "keras", "config": "visualization.plot_model"},
    "a function that reads configs": {**GALLERY, "module": "builtins", "config": "deserialize"},
    "a function hidden behind one that is known": {**GALLERY, "registered_name": "relu"},
    "a function of another module": {**GALLERY, "module": "os", "config": "abort"},
    "a data set": {**GALLERY, "module": "keras.datasets.mnist", "config": "load_data"},
    "an application": {**GALLERY, "module": "keras.applications", "config": "VGG16"},
    "a lambda": {"class_name": "__lambda__", "config": {"code": "", "defaults": [], "closure": []}},
    "a type": {
        "class_name": "__typespec__",
        "spec_name": "Lambda",
        "module": "keras.layers",
        "registered_name": None,
        "config": [],
    },
    "a type in an .h5": {"class_name": "TypeSpec", "type_spec": "tf.TensorSpec", "serialized": []},
    "a tensor in an .h5": {"class_name": "CompositeTensor", "spec": [], "tensors": []},
    "a Lambda": named("Lambda", function=GALLERY),
    "a Lambda with a dot": named("layers.Lambda", "keras", function="relu"),
    "a Lambda under its private name": named(
        "Lambda", "keras.src.layers.core.lambda_layer", function="relu"
    ),
    "a Lambda in the form of .h5": {"class_name": "Lambda", "config": {"function": "relu"}},
    "a Lambda in the form of .h5 with a module": {
        **named("Lambda", "no_module", "test_configs>Registered", function="relu"),
        "__passive_serialization__": True,
    },
    "a Lambda with the name of a layer that is known": named("Lambda", registered_name="Dense"),
    "a Lambda in a layer": named("TimeDistributed", layer=named("Lambda", function="relu")),
    "a Lambda in a list": named("Pipeline", layers=[named("Lambda", function="relu")]),
    "a SavedModel": named("TFSMLayer", filepath="evil"),
    "a module of JAX": named("JaxLayer", call_fn=GALLERY),
    "a module of PyTorch": named("TorchModuleWrapper", "keras.src.utils.torch_utils"),
    "a branch": named("Cond", "keras.src.ops.core"),
    "a loop": named("WhileLoop", "keras.src.ops.core", cond="relu", body="relu"),
    "a file of words": named("StringLookup", vocabulary="/etc/passwd"),
    "a file of numbers": named("IntegerLookup", vocabulary="/etc/passwd"),
    "a file of words in a class that reads bytes": named(
        "TextVectorization", vocabulary={"class_name": "__bytes__", "value": "/etc/passwd"}
    ),
    "a file of weights": named("TextVectorization", idf_weights="/etc/passwd"),
    "a callback": named("CSVLogger", "keras.callbacks", filename="escaped"),
    "features": named("FeatureSpace", "keras.utils"),
    "a data set of arrays": named("PyDataset", "keras.utils"),
    "a test of Keras": named("DenseTest", "keras.src.layers.core.dense_test"),
    "a package that is not there": named("Backbone", "keras_hub.models"),
    "a function in the form of a tuple": {**GALLERY, "class_name": "__tuple__", "items": []},
    "a class without a name": {"class_name": ["Dense"], "config": {}, "module": "keras.layers"},
    "a module without a name": {**named("Dense"), "module": {"class_name": "__bytes__"}},
    "a function without a name": {**GALLERY, "config": {"class_name": "__bytes__"}},
}


@pytest.fixture(scope="module")
def config():
    """What Keras says of a small model."""
    inputs = keras.Input((2,))
    outputs = layers.Dense(2, name="victim")(inputs)
    return json.loads(keras.Model(inputs, outputs).to_json())


@pytest.fixture
def attacked(config):
    """The config of a model with something in one place."""

    def attack(place, value):
        changed = json.loads(json.dumps(config))
        victim = changed["config"]["layers"][1]
        if place == "in a node":
            victim["inbound_nodes"][0]["kwargs"]["mask"] = [value]
        elif place == "as a layer":
            changed["config"]["layers"].append({**value, "name": "victim", "inbound_nodes": []})
        elif place == "in the build config":
            victim["build_config"] = {"shapes_dict": {"x_shape": value}}
        elif place == "in a nested compile config":
            victim["compile_config"] = {"metrics": [{"a": value}]}
        elif place == "as the model":
            return value
        else:
            victim["config"][place] = value
        return changed

    return attack


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_what_may_not_be_named_is_refused_wherever_it_stands(attack, attacked):
    places = ("activation", "dtype", "kernel_initializer", "any", "as a layer", "as the model")
    for place in (*places, "in a node", "in the build config", "in a nested compile config"):
        with pytest.raises(ValueError, match=r"^it(s layer)? ") as error:
            check_config(attacked(place, attack), {})
        assert "\n" not in str(error.value)
        if place == "activation" and attack not in (ATTACKS["a Lambda in a list"],):
            assert "'victim'" in str(error.value)


def test_a_name_in_an_h5_that_would_become_a_function():
    config = {"class_name": "Dense", "config": {"name": "d", "units": 1, "activation": "serialize"}}
    with pytest.raises(ValueError, match="its layer 'd' names the function 'serialize'"):
        check_config(config, {})
    config["config"]["activation"] = "relu"
    check_config(config, {})


def test_no_module_is_imported():
    config = named("DenseTest", "keras.src.layers.core.dense_test")
    with pytest.raises(ValueError, match=r"which Keras .* does not have"):
        check_config(config, {})
    # Not even where Keras finds the name elsewhere: an activation of any module.
    for config in (
        named("relu", "keras.src.layers.core.dense_test"),
        {**GALLERY, "module": "keras_hub.evil", "config": "relu", "registered_name": "relu"},
    ):
        with pytest.raises(ValueError, match=r"names the (class|function) 'relu'"):
            check_config(config, {})
    assert "keras.src.layers.core.dense_test" not in sys.modules


def test_what_passes_leads_keras_to_what_is_allowed(monkeypatch):
    """Random names, looked up by Keras itself, in both of its forms and by name alone."""
    generator = random.Random(0)
    symbols = [name.rsplit(".", 1) for name in api_export.REGISTERED_NAMES_TO_OBJS]
    modules = [name for name in sys.modules if name.startswith("keras.")]
    modules += ["keras", "os", "builtins", "keras.src.layers.core.dense_test", "keras_hub", None]
    known = ["relu", "Dense", "Zeros", "mse", "function", "__lambda__"]
    mine = ["test_configs>Registered", "Own", "Lambda"]
    monkeypatch.setattr(importlib, "import_module", lambda name, *_: sys.modules[name])
    families = [sys.modules[f"keras.src.{family}"].ALL_OBJECTS_DICT for family in _FAMILIES]
    given, passed, found = {"Own": Own, "Lambda": Own}, 0, 0
    for _ in range(10_000):
        module, name = generator.choice(symbols)
        others = [generator.choice(symbols)[1], *generator.choices(known + mine, k=2)]
        config = {
            "module": generator.choice([module, generator.choice(modules)]),
            "class_name": generator.choice([name, "function", *others]),
            "config": generator.choice([name, {}, *others]),
            "registered_name": generator.choice([None, name, *others]),
            "__passive_serialization__": True,
        }
        for key in ("module", "config", "registered_name", "__passive_serialization__"):
            if generator.random() < 0.2:
                del config[key]
        try:
            check_config(config, given)
        except ValueError:
            continue
        passed += 1
        for result in looked_up(config, given, families):
            found += 1
            assert result in (Own, Registered) or id(result) in _allowed(), config
    assert passed > 500
    assert found > 500


def looked_up(config, given, families):
    """What Keras finds for a config, in all ways in which it may come to look."""
    name, module = config["class_name"], config.get("module")
    registered_name = config.get("registered_name", name)
    is_function = name == "function"
    name = config.get("config") if is_function else name
    kind = "function" if is_function else "class"
    for place, registered in (
        (module, registered_name),
        *((module, name) for family in families if registered_name in family),
    ):
        with contextlib.suppress(TypeError, ValueError, KeyError):
            yield serialization_lib._retrieve_class_or_fn(
                name, registered, place, kind, config, {**given, **GLOBAL_CUSTOM_OBJECTS}
            )
    for family in families:
        for key in {name, registered_name} & set(family):
            yield family[key]
    if not is_function:
        found = keras.saving.get_registered_object(name, given, vars(keras.src.layers))
        if found is not None:
            yield found


def test_nesting_deeper_than_the_stack_is_no_way_past():
    deep = named("Lambda", function="relu")
    for _ in range(20_000):
        deep = [deep]
    with pytest.raises(ValueError, match="is a Lambda"):
        check_config(deep, {})


def with_gallery(path, place):
    """A model that draws its constant input into the file "escaped.png" when it is loaded."""
    inputs = keras.Input((2,))
    model = keras.Model(inputs, layers.Dense(2, name="victim")(inputs))
    config = json.loads(model.to_json())
    image = {"class_name": "__numpy__", "config": {"value": [[[[0.5]]]], "dtype": "float32"}}
    drawn = named(
        "Lambda", name="drawn", function=GALLERY, arguments={"path": str(path.parent / "escaped")}
    )
    node = {"args": [image], "kwargs": {}}
    if place == "a layer":
        config["config"]["layers"].append({**drawn, "name": "drawn", "inbound_nodes": [node]})
    else:
        victim = config["config"]["layers"][1]
        victim["config"]["activation"] = GALLERY
    text = json.dumps({**config, "compile_config": None})
    model.save(path)
    if path.suffix == ".h5":
        with h5py.File(path, "a") as file:
            file.attrs["model_config"] = text
        return
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (members | {"config.json": text}).items():
            archive.writestr(name, content)


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
@pytest.mark.parametrize("place", ["a layer", "an activation"])
def test_a_file_that_would_draw_a_picture_when_it_is_loaded(name, place, tmp_path):
    with_gallery(tmp_path / name, place)
    layer = "drawn' is a Lambda" if place == "a layer" else "victim' names the function"
    with pytest.raises(ValueError, match=rf"its layer '{layer}.* To fix it: replace"):
        load_model(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("key", ["activation", "recurrent_activation"])
@pytest.mark.parametrize("module", [{}, {"module": "keras.layers"}])
def test_a_function_that_is_missing_is_named(key, module):
    """QKeras writes its activations as text, which Keras looks up among its own."""
    layer = {"class_name": "GRU", "config": {"name": "loop", key: "quantized_relu(4)"}, **module}
    with pytest.raises(ConfigError, match=rf"'loop' names the {key} 'quantized_relu\(4\)'"):
        check_config(layer, {})
    check_config(layer, {"quantized_relu(4)": keras.activations.relu})
    check_config({**layer, "config": {"name": "loop", key: "tanh"}}, {})
