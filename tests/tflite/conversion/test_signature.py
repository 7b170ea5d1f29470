import keras
import numpy as np
import pytest

from keras_kd.tflite.conversion.signature import Signature


def _names(model):
    signature = Signature(model)
    inputs = {t.name: np.zeros((2, *t.shape[1:]), t.dtype) for t in signature.inputs}
    return [tensor.name for tensor in signature.inputs], list(signature(inputs))


def _model(inputs, outputs):
    return keras.Model(inputs, outputs)


def test_names_that_the_user_gave():
    image = keras.Input((4,), name="image")
    model = _model(image, keras.layers.Dense(2, name="scores")(image))
    assert _names(model) == (["image"], ["scores"])


def test_automatic_names_do_not_depend_on_what_was_built_before():
    for _ in range(2):
        first, second = keras.Input((4,)), keras.Input((4,))
        outputs = [keras.layers.Dense(2)(first), keras.layers.BatchNormalization()(second)]
        model = _model([first, second], outputs)
        assert _names(model) == (["input", "input_1"], ["output", "output_1"])


def test_keys_of_dicts():
    first, second = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    outputs = {"q": keras.layers.Dense(2, name="layer")(first), "p": keras.layers.ReLU()(second)}
    names = _names(_model({"b": first, "a": second}, outputs))
    assert names == (["b", "a"], ["q", "p"])


def test_names_become_identifiers():
    image = keras.Input((4,), name="my-image")
    model = _model({"1 x": image}, keras.layers.Dense(2, name="class-scores")(image))
    assert _names(model) == (["tensor_1_x"], ["class_scores"])


class Subclassed(keras.Model):
    def call(self, inputs):
        if isinstance(inputs, dict):
            return inputs["v"]
        return list(inputs) if isinstance(inputs, list | tuple) else inputs


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        (np.zeros((2, 3)), (["input"], ["output"])),
        ({"u": np.zeros((2, 3)), "v": np.zeros((2, 4))}, (["u", "v"], ["output"])),
        ([np.zeros((2, 3)), np.zeros((2, 4))], (["input", "input_1"], ["output", "output_1"])),
    ],
)
def test_subclassed_models(inputs, names):
    model = Subclassed()
    model(inputs)
    assert _names(model) == names


@pytest.mark.parametrize("build", [Subclassed, lambda: keras.Sequential([keras.layers.Dense(2)])])
def test_a_model_that_was_never_built(build):
    with pytest.raises(ValueError, match=r"does not know the shape .*call it once on a batch"):
        Signature(build())


def test_sizes_that_are_left_open():
    signature = Signature(_model(x := keras.Input((None, 3), name="sound"), keras.layers.ReLU()(x)))
    assert [tensor.shape for tensor in signature.inputs] == [(1, None, 3)]


def test_texts_are_refused():
    word = keras.Input((1,), dtype="string", name="word")
    lookup = keras.layers.StringLookup(vocabulary=["a"])
    with pytest.raises(ValueError, match=r"text in its input 'word'.*look words up before"):
        Signature(_model(word, lookup(word)))


def test_nested_inputs():
    first, second = keras.Input((4,)), keras.Input((4,))
    model = _model({"a": {"b": first}, "c": second}, keras.layers.Add()([first, second]))
    with pytest.raises(ValueError, match=r"input 'a' is nested.*a flat list or dict"):
        Signature(model)
