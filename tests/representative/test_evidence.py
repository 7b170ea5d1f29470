"""What students trained on real digits say of data that are theirs, and of data that are not."""

import functools
import warnings

import keras
import numpy as np
import pytest
from keras import layers

from keras_kd import data
from keras_kd._representative import representative_examples
from keras_kd.tflite.student import Signature


@pytest.fixture(scope="module")
def digits():
    sample = data.load_sample()
    return sample.x_train[:4000], sample.y_train[:4000]


def build(kind, library=keras):
    """The BatchNormalization has a momentum that settles in some dozen steps."""
    own = library.layers
    first = {
        "normalized": [],
        "rescaled": [own.Rescaling(1 / 127.5, offset=-1)],
        "plain": [],
        "plain, rescaled": [own.Rescaling(1 / 255)],
    }[kind]
    normalized = "plain" not in kind
    middle = [own.BatchNormalization(momentum=0.9, name="normalization")] if normalized else []
    keras.utils.set_random_seed(0)
    return library.Sequential(
        [
            library.Input((28, 28, 1)),
            *first,
            own.Conv2D(8, 3, strides=2),
            *middle,
            own.ReLU(),
            own.Flatten(),
            own.Dense(10),
        ]
    )


def fit(student, x, y, library=keras):
    loss = library.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile(library.optimizers.Adam(0.002), loss)
    student.fit(x, y, batch_size=64, verbose=0)
    return student


KINDS = {"normalized": 1, "rescaled": 255, "plain": 1, "plain, rescaled": 255}


@pytest.fixture(scope="module")
def trained(digits):
    """A function from a kind to a student that must not be changed."""

    @functools.cache
    def make(kind):
        return fit(build(kind), digits[0] * KINDS[kind], digits[1])

    return make


@pytest.fixture(params=KINDS)
def student(request, trained):
    """A student, what its images must be multiplied with, and its kind."""
    return trained(request.param), KINDS[request.param], request.param


def examples(x, student, **options):
    return representative_examples(x, Signature(student).inputs, student=student, **options)


@pytest.fixture
def strict():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.fast_rows(2)
@pytest.mark.usefixtures("strict")
def test_real_examples_pass_in_silence(student, digits):
    model, scale, _ = student
    x = digits[0] * np.float32(scale)
    for real in (x[:500], x[-500:], x[:8], x[:1], x[np.argsort(digits[1])][:300]):
        examples(real, model)


@pytest.mark.parametrize("factor", [255, 1 / 255])
def test_another_scale_is_warned_of(student, digits, factor):
    model, scale, kind = student
    if kind == "plain" and factor < 1:
        pytest.skip("nothing in this student tells that these are not the images of its training")
    with pytest.warns(UserWarning, match=r"representative_data.*input_range=\(low, high\)"):
        examples(np.rint(digits[0][:200] * 255) / 255 * np.float32(scale * factor), model)


def test_noise_is_warned_of_where_there_is_a_batch_normalization(student):
    model, scale, kind = student
    if "plain" in kind:
        pytest.skip("noise of the right range looks like anything")
    noise = np.random.default_rng(0).random((500, 28, 28, 1), np.float32) * scale
    with pytest.warns(UserWarning, match=r"at its layer 'normalization'.* nats per channel"):
        examples(noise, model)


@pytest.mark.usefixtures("strict")
def test_who_names_the_range_is_believed(trained, digits):
    examples(np.rint(digits[0][:50] * 255), trained("plain"), input_range=(0, 255))


@pytest.mark.fast_rows(1)
@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_averages_on_their_way_are_no_evidence(digits, steps):
    """After one step the averages have gone a hundredth of the way from 0 and 1."""
    x, y = digits
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(8, 3),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10),
        ]
    )
    if steps:
        fit(model, x[: 64 * steps], y[: 64 * steps])
    examples(x[:200], model)


@pytest.mark.usefixtures("strict")
def test_a_frozen_normalization_remembers_other_data(trained, digits):
    model = keras.models.clone_model(trained("normalized"))
    model.set_weights(trained("normalized").get_weights())
    model.get_layer("normalization").trainable = False
    examples(digits[0][:200] * 2 - 1, model)


def test_tf_keras_students_say_it_too(digits):
    import tf_keras

    model = fit(build("normalized", tf_keras), *digits, tf_keras)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        examples(digits[0][:200], model)
    with pytest.warns(UserWarning, match="at its layer 'normalization'"):
        examples(digits[0][:200] * 255, model)


def test_nested_students_and_several_inputs(trained, digits):
    x, inner = digits[0], trained("normalized")
    image, other = keras.Input((28, 28, 1), name="picture"), keras.Input((2,), name="numbers")
    joined = layers.Concatenate()([inner(image), other])
    model = keras.Model({"b": image, "a": other}, layers.Dense(2)(joined))
    numbers = np.random.default_rng(0).random((200, 2), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        examples({"b": x[:200], "a": numbers}, model)
    with pytest.warns(UserWarning, match="at its layer 'normalization'"):
        examples({"b": x[:200] * 255, "a": numbers}, model)


def test_students_that_take_one_example(trained, digits):
    image = keras.Input(batch_shape=(1, 28, 28, 1))
    model = keras.Model(image, trained("normalized")(image))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        examples(digits[0][:200], model)
    with pytest.warns(UserWarning, match="at its layer 'normalization'"):
        examples(digits[0][:200] * 255, model)


def test_students_are_left_as_they_were(trained, digits):
    model = trained("normalized")
    before = model.get_weights()
    with pytest.warns(UserWarning, match="normalization"):
        examples(digits[0][:200] * 255, model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not any("call" in vars(layer) for layer in model.layers)
