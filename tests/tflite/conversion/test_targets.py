import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kd import tflite
from keras_kd.tflite import TFLiteModel, microcontroller
from keras_kd.tflite.conversion import targets
from keras_kd.tflite.conversion.targets import TARGETS, rewritten


@pytest.mark.parametrize("form", ["float16", "dynamic_int8", "int4"])
def test_what_tflm_refuses_is_refused_for_microcontrollers(form):
    with pytest.raises(ValueError, match=r"Micro refuses the others. To fix it: choose .*'int8'"):
        TARGETS["microcontroller"].check_form(form)


@pytest.mark.parametrize("target", ["android", "web"])
def test_slow_forms_are_warned_of(target):
    with pytest.warns(UserWarning, match=r"int16x8.*XNNPACK has none.*'int8', or 'float16'"):
        TARGETS[target].check_form("int16x8")


@pytest.mark.parametrize("target", ["microcontroller", "web"])
def test_sizes_must_be_known_where_inputs_are_not_resized(target):
    with pytest.raises(ValueError, match=r"'x' of shape \(1, None, 3\).*cannot be resized there"):
        TARGETS[target].check_lengths({"y": (1, 2), "x": (1, None, 3)})
    TARGETS["android"].check_lengths({"x": (1, None, 3)})


def test_a_file_with_integers_at_its_ends_is_not_for_phones(micro_model):
    TARGETS["microcontroller"].check_ends(micro_model)
    for target in ("android", "web"):
        with pytest.raises(ValueError, match=r"image int8\[1, 8, 8, 1\].*MediaPipe and browsers"):
            TARGETS[target].check_ends(micro_model)


@pytest.mark.skipif(not microcontroller.is_installed(), reason="needs tflite-micro")
def test_tflm_runs_the_examples_that_a_file_is_verified_on(student, images, monkeypatch):
    compared = []
    monkeypatch.setattr(targets, "compare_stored", lambda _, stored: compared.append(stored))
    model = tflite.convert(
        student, "int8", images, "microcontroller", verification_data=images[:20]
    )
    [stored] = compared
    expected = model.quantize_inputs(images[:20])["image"]
    np.testing.assert_array_equal(stored["image"][8:], expected)
    assert stored["image"][:8].min() == -128
    assert stored["image"][:8].max() == 127


layers = keras.layers
DATA = np.random.default_rng(0).normal(size=(32, 3, 4)).astype("float32")
REPEATS = {
    "of one axis": lambda t: tf.tile(t, [1, 12, 1]),
    "of two axes": lambda t: tf.tile(t, [1, 3, 23]),
    "of tens": lambda t: tf.tile(t, [1, 100, 1]),
    "of many tensors": lambda t: tf.concat([t, *(t + float(i) for i in range(12))], axis=-1),
}


def _student(repeat):
    x = keras.Input((3, 4))
    y = layers.Lambda(repeat)(layers.Conv1D(4, 1)(x))
    return keras.Model(x, layers.Conv1D(2, 1)(y))


@pytest.mark.parametrize("kind", REPEATS)
def test_the_numbers_are_the_same(kind):
    model = tflite.convert(_student(REPEATS[kind]))
    content, names = rewritten(model.content)
    changed = TFLiteModel(content)
    assert names == (("CONCATENATION",) if kind == "of many tensors" else ("TILE",))
    assert "TILE" not in changed.operators
    for graph in changed.flatbuffer._model.subgraphs:
        assert max(len(operator.inputs) for operator in graph.operators) <= 10
    np.testing.assert_array_equal(changed.predict(DATA), model.predict(DATA))


def test_nothing_is_changed_for_nothing(float_model):
    assert rewritten(float_model.content) == (float_model.content, ())


@pytest.mark.skipif(not microcontroller.is_installed(), reason="needs tflite-micro")
@pytest.mark.parametrize("form", ["int8", pytest.param("int16x8", marks=pytest.mark.slow)])
def test_repeated_vectors_are_bit_equal_on_microcontrollers(form):
    student = keras.Sequential(
        [keras.Input((12,)), layers.Dense(8), layers.RepeatVector(12), layers.Conv1D(6, 3)]
    )
    data = DATA.reshape(32, 12)
    model = tflite.convert(student, form, data, "microcontroller")
    assert model.operators["CONCATENATION"] == 3
    assert microcontroller.check_agreement(model, data).equal == 1
    assert "TILE written as CONCATENATION" in str(model.verification)
