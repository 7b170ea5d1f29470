"""Files of other converters, paired with the student by names, places and shapes."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_kd import tflite
from keras_kd.tflite.tensors import TensorInfo
from keras_kd.tflite.verification.closeness import misses
from keras_kd.tflite.verification.pairing import colored, ends, pair


def tensors(*parts):
    return [TensorInfo(name, (1, *shape), np.dtype("float32")) for name, shape in parts]


PAIRS = {
    "equal names": ([("b", (2,)), ("a", (2,))], [("a", (2,)), ("b", (2,))], {"a": "a", "b": "b"}),
    "names of converters": (
        [("serving_default_a:0", (2,)), ("b_int8", (2,)), ("c-c", (2,))],
        [("c_c", (2,)), ("b", (2,)), ("a", (2,))],
        {"serving_default_a:0": "a", "b_int8": "b", "c-c": "c_c"},
    ),
    "places": (
        [("output_1", (2,)), ("output_0", (2,))],
        [("p", (2,)), ("q", (2,))],
        {"output_0": "p", "output_1": "q"},
    ),
    "the only one": ([("input_1_int8", (2,))], [("image", (2,))], {"input_1_int8": "image"}),
    "shapes": (
        [("x", (2,)), ("y", (None, 4)), ("z", (3,))],
        [("c", (3,)), ("a", (7, 4)), ("b", (2,))],
        {"x": "b", "y": "a", "z": "c"},
    ),
    "a shape and the rest": (
        [("x", (None,)), ("y", (2,))],
        [("a", (2,)), ("b", (3,))],
        {"x": "b", "y": "a"},
    ),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_pairs(kind):
    of_file, of_student, expected = PAIRS[kind]
    assert pair("input", tensors(*of_file), tensors(*of_student), {}) == expected


def test_what_the_user_says_comes_first():
    of_file, of_student = tensors(("a", (2,)), ("b", (2,))), tensors(("b", (2,)), ("a", (2,)))
    assert pair("output", of_file, of_student, {"a": "b", "z": "a"}) == {"a": "b", "b": "a"}


@pytest.mark.parametrize(
    ("of_file", "of_student", "names", "message"),
    [
        ([("x", (2,)), ("y", (2,))], [("a", (2,)), ("b", (2,))], {}, r"--map x=NAME --map y=NAME"),
        ([("x", (2,))], [("a", (2,)), ("b", (2,))], {}, r"1 inputs .* with 2 .*as many inputs"),
        ([("x", (2,))], [("a", (3,))], {}, r"input is x float32\[1, 2\] .* is a float32\[1, 3\]"),
        ([("x", (2,)), ("y", (3,))], [("y", (2,)), ("b", (2,))], {}, r"input is y float32\[1, 3\]"),
        ([("x", (2,)), ("y", (3,))], [("a", (2,)), ("b", (3,))], {"x": "b"}, r"is b float32"),
    ],
)
def test_pairs_that_are_not_clear(of_file, of_student, names, message):
    with pytest.raises(ValueError, match=message):
        pair("input", tensors(*of_file), tensors(*of_student), names)


def test_color_images_for_grey_ones():
    color, grey = tensors(("x", (6, 6, 3))), tensors(("image", (6, 6, 1)))
    assert colored(color, grey, {"x": "image"}) == {"x"}
    assert colored(color, color, {"x": "x"}) == set()
    assert pair("input", color, tensors(("image", (6, 6))), {}) == {"x": "image"}


def test_ends_that_the_student_lacks():
    logits = np.array([[2.0, -1.0], [0.5, 0.5]])
    shares = np.array([[0.75, 0.25], [0.5, 0.5]])
    pairs = {"x": "y"}
    assert ends({"x": "SOFTMAX"}, {"y": logits}, pairs) == {"x": "softmax"}
    assert ends({"x": "LOGISTIC"}, {"y": logits}, pairs) == {"x": "sigmoid"}
    assert ends({"x": "SOFTMAX"}, {"y": shares}, pairs) == {}
    assert ends({"x": "LOGISTIC"}, {"y": shares}, pairs) == {}
    assert ends({"x": "NONE"}, {"y": logits}, pairs) == {}


X = np.random.default_rng(0).random((64, 6, 6, 1), np.float32)


def network(library, end="softmax"):
    keras.utils.set_random_seed(0)
    layers = library.layers
    return library.Sequential(
        [
            library.Input((6, 6, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(3, activation=end),
        ]
    )


def representative_dataset():
    for image in X[:32]:
        yield [image[None]]


def converted(converter, integers):
    if integers:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = representative_dataset
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tflite.TFLiteModel(converter.convert())


@pytest.mark.parametrize("integers", [False, True], ids=["float32", "int8"])
@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_files_of_the_plain_converter(library, integers, tmp_path):
    student = network(library)
    converters = [tf.lite.TFLiteConverter.from_keras_model(student)]
    if integers == (library is keras):
        saved = str(tmp_path / "saved")
        (student.export if library is keras else student.save)(saved)
        converters.append(tf.lite.TFLiteConverter.from_saved_model(saved))
    for converter in converters:
        model = converted(converter, integers)
        assert model.flatbuffer.form == ("int8" if integers else "float32")
        verification = tflite.verify(model, student, X)
        # One of 64 untrained choices may be a tie.
        assert verification.agreement > 0.98
        assert verification.outputs[0].clear_agreement == 1.0
        assert verification.largest_difference < (0.05 if integers else 1e-6)
        assert misses(verification, model.flatbuffer.form) == []
        # One of the same form that computes something else.
        other = network(keras)
        weights = student.get_weights()
        other.set_weights([*weights[:-2], -weights[-2], weights[-1]])
        assert misses(tflite.verify(model, other, X), model.flatbuffer.form)


@pytest.fixture(scope="module")
def several():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    a, b = keras.Input((4,), name="a"), keras.Input((7,), name="b-b")
    both = layers.Concatenate()([layers.Dense(5)(a), layers.Dense(5)(b)])
    return keras.Model([a, b], [layers.Dense(3, name=name)(both) for name in ("p", "q")])


def test_several_inputs_and_outputs(several):
    model = converted(tf.lite.TFLiteConverter.from_keras_model(several), False)
    random = np.random.default_rng(0)
    a, b = random.random((8, 4), np.float32), random.random((8, 7), np.float32)
    for x in ([a, b], {"a": a, "b-b": b}, {"a": a, "b_b": b}):
        verification = tflite.verify(model, several, x)
        assert verification.largest_difference < 1e-6
        assert "output 'output_1' of the file is 'q' of the student" in verification.notes
        assert verification.notes[-1] in str(verification)
    swapped = tflite.verify(model, several, [a, b], names={"output_0": "q", "output_1": "p"})
    assert swapped.largest_difference > 0.1
    labels = {"q": several.predict([a, b], verbose=0)[1].argmax(axis=1)}
    assert tflite.verify(model, several, [a, b], labels).accuracy == 1.0
    with pytest.raises(ValueError, match=r"the names \['r'\] of the file"):
        tflite.verify(model, several, [a, b], names={"r": "p"})
    with pytest.raises(
        ValueError, match=r"the name 'r' for 'a' of the file.*one of \['a', 'b_b'\]"
    ):
        tflite.verify(model, several, [a, b], names={"a": "r"})


def test_what_brings_a_student_to_phones_is_known_again():
    student = network(keras, end=None)
    for made, note in (
        (tflite.android.with_softmax(student), "ends in a softmax that the student lacks"),
        (tflite.android.with_color_input(student), "takes color images"),
    ):
        verification = tflite.verify(tflite.convert(made), student, X)
        assert verification.largest_difference < 1e-5
        assert note in verification.notes[0]
        assert misses(verification, "float32") == []


def test_a_sigmoid_that_only_the_file_has():
    student = network(keras, end=None)
    made = keras.Sequential([student, keras.layers.Activation("sigmoid")])
    verification = tflite.verify(tflite.convert(made), student, X)
    assert verification.largest_difference < 1e-5
    assert "ends in a sigmoid" in verification.notes[0]
