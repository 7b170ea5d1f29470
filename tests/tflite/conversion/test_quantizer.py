"""The real ai-edge-quantizer on real files: each layer gets what was asked for, or it is said."""

import importlib.util
import warnings

import keras
import numpy as np
import pytest
from keras import layers

from keras_kd.tflite.conversion.converter import run_converter
from keras_kd.tflite.conversion.forms import FORMS, Options
from keras_kd.tflite.conversion.layer_names import layer_names
from keras_kd.tflite.conversion.quantizer import quantize
from keras_kd.tflite.model import TFLiteModel
from keras_kd.tflite.student import Signature

pytest.importorskip("ai_edge_quantizer", reason="needs the `int4` extra")
pytestmark = pytest.mark.filterwarnings("error:Received:UserWarning")


class Float:
    """A student, the float file of it and examples for it."""

    def __init__(self, student, **examples):
        signature = Signature(student)
        self.content = run_converter(signature, Options(FORMS["float32"]), None)
        self.names = layer_names(signature)
        self.examples = examples

    def quantize(self, recipe, examples=None):
        return TFLiteModel(quantize(self.content, recipe, examples, self.names))

    def error(self, model):
        """The mean difference from the float file, as a share of what it says."""
        expected = TFLiteModel(self.content).predict(self.examples)
        return np.abs(model.predict(self.examples) - expected).mean() / np.abs(expected).mean()


@pytest.fixture(scope="module")
def cnn():
    keras.utils.set_random_seed(0)
    inner = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.Conv2D(16, 3, padding="same", use_bias=False, name="conv_2"),
            layers.BatchNormalization(name="normalization"),
            layers.ReLU(name="relu"),
            layers.DepthwiseConv2D(3, name="depthwise"),
        ],
        name="body",
    )
    # One that does nothing would vanish with its name.
    values = [np.linspace(0.5, 2, 16), np.linspace(-0.5, 0.5, 16), np.zeros(16), np.ones(16)]
    inner.get_layer("normalization").set_weights(values)
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv_1")(image)
    x = layers.Flatten(name="flat")(inner(x))
    x = layers.Dense(32, activation="relu", name="hidden")(x)
    x = layers.Dense(10, name="logits")(x)
    images = np.random.default_rng(0).random((120, 8, 8, 1), np.float32)
    return Float(keras.Model(image, x), image=images)


KERNELS = ("conv_1", "conv_2", "depthwise", "hidden", "logits")


def kernel_types(model):
    """The type of the weights by layer, for the operators of `cnn`."""
    from ai_edge_litert import schema_py_generated as schema

    file = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(model.content, 0))
    types = {value: name for name, value in vars(schema.TensorType).items()}
    [graph] = file.subgraphs
    found = []
    for operator in graph.operators:
        code = file.operatorCodes[operator.opcodeIndex]
        if max(code.builtinCode, code.deprecatedBuiltinCode) in (3, 4, 9):
            found.append(types[graph.tensors[operator.inputs[1]].type])
    return dict(zip(KERNELS, found, strict=True))


def test_4_bits_where_there_are_kernels_for_it_and_where_it_saves(cnn):
    model = cnn.quantize({"*": "int4"})
    assert kernel_types(model) == {
        "conv_1": "INT8",  # 36 values
        "conv_2": "INT4",
        "depthwise": "INT8",
        "hidden": "INT4",
        "logits": "INT4",
    }
    assert model.size < cnn.quantize({"*": "dynamic_int8"}).size < len(cnn.content)
    assert cnn.error(model) < 0.3
    assert (model.inputs[0].dtype, model.outputs[0].dtype) == (np.float32, np.float32)
    # Both runtimes of LiteRT have the kernels.
    x = cnn.examples
    np.testing.assert_allclose(model.predict(x), model.predict(x, "builtin"), atol=0.05)


def test_of_two_ways_to_scale_the_closer_one_is_kept(cnn):
    with_examples = cnn.error(cnn.quantize({"*": "int4"}, cnn.examples))
    assert with_examples <= cnn.error(cnn.quantize({"*": "int4"}))


def test_small_weights_get_4_bits_if_they_are_asked_for_by_name(cnn):
    assert kernel_types(cnn.quantize({"conv_1": "int4", "*": "int4"}))["conv_1"] == "INT4"


def test_a_form_for_each_layer_by_its_name_in_keras(cnn):
    recipe = {"conv_1": "int8", "logits": "float32", "body": "dynamic_int8", "*": "int4"}
    model = cnn.quantize(recipe, cnn.examples)
    assert kernel_types(model) == {
        "conv_1": "INT8",
        "conv_2": "INT8",
        "depthwise": "INT8",
        "hidden": "INT4",
        "logits": "FLOAT32",
    }
    # Only the first layer computes in integers: its neighbours are told so.
    assert (model.operators["QUANTIZE"], model.operators["DEQUANTIZE"]) == (1, 1)
    assert cnn.error(model) < 0.3


@pytest.mark.parametrize(
    ("recipe", "quantized"),
    [
        ({"conv_.": "dynamic_int8"}, {"conv_1", "conv_2"}),
        ({"body/.*": "dynamic_int8"}, {"conv_2", "depthwise"}),
        ({"body/conv_2": "dynamic_int8"}, {"conv_2"}),
        # Merged into the convolution by the converter.
        ({"normalization": "dynamic_int8"}, {"conv_2"}),
        ({"conv_1": "float32", "conv.*": "dynamic_int8"}, {"conv_2"}),
        ({"*": "float32", "logits": "dynamic_int8"}, {"logits"}),
        ({"*": "dynamic_int8", "hidden": "float32"}, set(KERNELS) - {"hidden"}),
    ],
)
def test_the_first_match_counts_and_the_star_stands_for_the_rest(cnn, recipe, quantized):
    types = kernel_types(cnn.quantize(recipe))
    assert {name for name, kind in types.items() if kind == "INT8"} == quantized


def test_float16_and_int16(cnn):
    half = cnn.quantize({"*": "float16"})
    assert "FLOAT16" in half.flatbuffer.weight_types()
    assert cnn.error(half) < 0.01
    wide = cnn.quantize({"*": "int16x8"}, cnn.examples)
    assert cnn.error(wide) < cnn.error(cnn.quantize({"*": "int8"}, cnn.examples)) < 0.05


def test_calibration_does_not_clip_what_one_example_reaches(cnn):
    """A moving average would: of 119 examples up to 1 and one up to 10 it made less than 2."""
    images = cnn.examples["image"].copy()
    images[60] *= 10
    model = cnn.quantize({"*": "int8"}, {"image": images})
    [(low, high)] = model.flatbuffer.input_ranges()
    assert low <= 0
    assert high == pytest.approx(images.max(), rel=0.01)


def test_nothing_is_written_to_the_terminal(cnn, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cnn.quantize({"*": "int8"}, cnn.examples)
    said = capfd.readouterr()
    assert "Calibration" not in said.out + said.err
    assert "it/s" not in said.err


def test_recipes_of_the_quantizer_itself(cnn):
    from ai_edge_quantizer import recipe
    from ai_edge_quantizer.recipe_manager import RecipeManager

    entries = recipe.dynamic_wi8_afp32()
    manager = RecipeManager()
    manager.load_quantization_recipe(entries)
    for given in (entries, manager):
        assert set(kernel_types(cnn.quantize(given)).values()) == {"INT8"}
    static = cnn.quantize(recipe.static_wi8_ai8(), cnn.examples)
    assert static.inputs[0].dtype == np.int8
    with pytest.raises(ValueError, match="without representative_data"):
        cnn.quantize(recipe.static_wi8_ai8())
    entries[0]["regex"] = "no_such_tensor"
    with pytest.raises(ValueError, match=r"'no_such_tensor' is found in no tensor.*conv_1"):
        cnn.quantize(entries)


@pytest.mark.parametrize(
    ("recipe", "error", "message"),
    [
        ({"conv": "int4"}, ValueError, r"'conv' matches no layer.*'body/conv_2'.*'logits'"),
        ({"conv*": "int4"}, ValueError, r"'conv\*' matches no layer.*'conv\.\*' matches all"),
        ({"conv_1": "int8"}, ValueError, "without representative_data"),
        ({"(": "int4"}, ValueError, r"the key '\('.*regular expression"),
        ({"*": "int3"}, ValueError, r"recipe\['\*'\]='int3'.*'int4'"),
        ({7: "int4"}, TypeError, "the key 7"),
        ({}, ValueError, "an empty recipe"),
        ({"*": "float32"}, ValueError, "every weight stays float32"),
        ({"flat": "int4"}, ValueError, "every weight stays float32"),
        ({"depthwise": "int4"}, ValueError, "none of whose weights can become int4"),
        ("int4", TypeError, "a recipe of type str"),
        ([], TypeError, "a recipe of type list"),
        ([{"regex": ".*"}], TypeError, "a recipe of type list"),
    ],
)
def test_recipes_that_cannot_be_followed(cnn, recipe, error, message):
    with pytest.raises(error, match=message) as raised:
        cnn.quantize(recipe)
    assert "\n" not in str(raised.value)


def test_another_form_than_asked_for_by_name_is_reported(cnn):
    with pytest.warns(UserWarning, match=r"body/depthwise \(DEPTHWISE_CONV_2D\): dynamic_int8 in"):
        cnn.quantize({"depthwise": "int4", "*": "int4"})


def test_what_is_silently_left_in_float_is_reported():
    keras.utils.set_random_seed(0)
    steps = keras.Input((6, 16), name="steps")
    student = keras.Model(
        steps, layers.Dense(40, name="logits")(layers.GRU(16, name="loop")(steps))
    )
    file = Float(student, steps=np.zeros((4, 6, 16), "float32"))
    with pytest.warns(UserWarning, match=r"loop \(WHILE\): float32 instead of int4"):
        model = file.quantize({"*": "int4"})
    assert "INT4" in model.flatbuffer.weight_types()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        file.quantize({"loop": "float32", "*": "int4"})


def test_without_the_package(cnn, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'keras-kd\[int4\]'"):
        cnn.quantize({"*": "int4"})


def words_of(*shape):
    return np.random.default_rng(0).integers(0, 200, shape).astype("int32")


def text_student(width, length=9):
    keras.utils.set_random_seed(0)
    words = keras.Input((length,), dtype="int32", name="words")
    x = layers.Embedding(200, width, mask_zero=True, name="table")(words)
    x = layers.GlobalAveragePooling1D()(x)
    return Float(keras.Model(words, layers.Dense(10, name="logits")(x)), words=words_of(80, 9))


def type_of_table(model):
    return next(t.type for t in model.flatbuffer.tensors() if t.shape[:1] == (200,) and t.bytes)


@pytest.mark.parametrize("length", [9, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("form", "stored", "most", "saved"),
    [
        ("int4", "INT4", 0.2, 0.7),
        ("dynamic_int8", "INT8", 0.02, 0.72),
        ("float16", "FLOAT16", 1e-3, 0.45),
    ],
)
def test_tables_of_words_get_the_form_too(form, stored, most, saved, length):
    text = text_student(32, length)

    model = text.quantize({"*": form})

    assert type_of_table(model) == stored
    assert text.error(model) < most
    assert len(text.content) - model.size > saved * 200 * 32 * 4


def test_rows_of_an_odd_width_keep_8_bits():
    """LiteRT finds rows of 4 bits at whole bytes: every second one would be another word's."""
    text = text_student(31)

    model = text.quantize({"*": "int4"})

    assert type_of_table(model) == "INT8"
    assert text.error(model) < 0.2
