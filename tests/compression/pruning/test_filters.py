"""Which filters `remove_filters` takes, and what becomes of the student."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd
from keras_kd.compression import (
    PolynomialSchedule,
    prune,
    quantize_aware,
    remove_filters,
    strip,
    summary,
    to_tf_keras,
)
from keras_kd.data import load_sample
from keras_kd.tflite import convert

from _filters import (
    check,
    conv,
    inverted_residual_net,
    widths,
)
from _models import chain, cross_entropy, inputs_for, randomized


def test_a_chain_loses_the_share_asked_for_of_every_layer_but_the_last():
    model = chain(
        conv(8, "first"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.MaxPooling2D(),
        conv(6, "second", activation="relu"),
        layers.Flatten(),
        layers.Dense(10, activation="relu", name="hidden"),
        layers.Dropout(0.5),
        layers.Dense(3, name="logits"),
    )
    smaller = check(model, 0.5)
    assert widths(smaller) == {"first": 4, "second": 3, "hidden": 5, "logits": 3}
    assert smaller.get_layer("hidden").kernel.shape == (4 * 4 * 3, 5)
    assert smaller.get_layer("second").kernel.shape == (3, 3, 4, 3)


def test_the_filters_that_stay_are_those_of_the_largest_norm():
    model = randomized(chain(conv(8, "first"), layers.Flatten(), layers.Dense(3)))
    norms = np.abs(np.asarray(model.get_layer("first").kernel)).sum((0, 1, 2))
    smaller = remove_filters(model, 0.25)
    kept = np.sort(np.argsort(norms)[2:])
    for weight in ("kernel", "bias"):
        before, after = (getattr(m.get_layer("first"), weight) for m in (model, smaller))
        np.testing.assert_array_equal(after, np.asarray(before)[..., kept])


def test_chosen_layers_become_narrower_and_others_do_not():
    model = chain(
        conv(8, "first"),
        conv(8, "second"),
        layers.Flatten(),
        layers.Dense(8, name="hidden"),
        layers.Dense(2, name="logits"),
    )
    before = {"first": 8, "second": 8, "hidden": 8, "logits": 2}
    assert widths(remove_filters(model, layers="first")) == {**before, "first": 4}
    assert widths(remove_filters(model, layers=layers.Dense)) == {**before, "hidden": 4}
    assert widths(remove_filters(model, skip=["first", layers.Dense])) == {**before, "second": 4}
    chosen = remove_filters(model, layers=lambda layer: layer.name.endswith("d"))
    assert widths(chosen) == {**before, "second": 4}


def test_how_many_filters_are_kept():
    model = randomized(
        chain(conv(20, "first"), conv(10, "second"), conv(4, "third"), conv(2, "last"))
    )

    def kept(*args, **options):
        return list(widths(remove_filters(model, *args, **options)).values())

    # 0.7 * 10 is 7 in decimals only.
    assert kept(0.7) == [6, 3, 2, 2]
    assert kept(0.9) == [2, 1, 1, 2]
    assert kept(0.9, minimum=3) == [3, 3, 3, 2]
    assert kept(0.7, multiple_of=4) == [8, 4, 4, 2]


def test_globally_the_least_filters_of_all_go():
    model = randomized(chain(conv(8, "first"), conv(8, "second"), conv(2, "last")))
    weight = model.get_layer("first").kernel
    # Seven filters of the first layer are much smaller than its mean.
    weight.assign(np.asarray(weight) * np.array([1.0] + [1e-3] * 7))
    smaller = remove_filters(model, 0.25, scope="global")
    assert widths(smaller) == {"first": 4, "second": 8, "last": 2}
    assert widths(remove_filters(model, 0.6, scope="global", minimum=2))["first"] == 2


def test_scales_of_normalizations_say_what_is_important():
    model = randomized(
        chain(
            conv(6, "first"),
            layers.BatchNormalization(name="normalization"),
            layers.Flatten(),
            layers.Dense(6, name="hidden"),
            layers.Dense(2, name="logits"),
        )
    )
    model.get_layer("normalization").gamma.assign([0.1, -2.0, 1.0, 0.2, -0.3, 3.0])
    smaller = remove_filters(model, 0.5, importance="batch_normalization")
    assert widths(smaller) == {"first": 3, "hidden": 6, "logits": 2}
    np.testing.assert_allclose(smaller.get_layer("normalization").gamma, [-2.0, 1.0, 3.0])


def test_a_function_says_what_is_important():
    model = randomized(chain(conv(6, "first"), layers.Flatten(), layers.Dense(2, name="logits")))
    smaller = remove_filters(model, 0.5, importance=lambda layer: np.arange(layer.bias.shape[0]))
    np.testing.assert_array_equal(
        smaller.get_layer("first").bias, np.asarray(model.get_layer("first").bias)[3:]
    )


def test_a_tf_keras_student_and_a_pruned_one_become_plain_keras_3_models():
    model = randomized(inverted_residual_net())
    x = inputs_for(model)
    expected = remove_filters(model, 0.5)
    for student in (to_tf_keras(model), prune(model, 0.5)):
        smaller = remove_filters(student, 0.5)
        assert isinstance(smaller, keras.Model)
        np.testing.assert_allclose(smaller(x), expected(x), atol=1e-5)


def test_the_result_is_saved_and_loaded_like_any_other(tmp_path):
    model = randomized(inverted_residual_net())
    smaller = remove_filters(model, 0.5)
    smaller.save(tmp_path / "smaller.keras")
    x = inputs_for(model)
    loaded = keras.models.load_model(tmp_path / "smaller.keras")
    np.testing.assert_array_equal(loaded(x), smaller(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0}, "share=0.*above 0.*every other filter"),
        ({"share": 1.0}, "share=1.0.*at most"),
        ({"share": 0.01}, "share=0.01.*so that none is removed.*larger share"),
        ({"minimum": 0}, "minimum=0.*at least 1"),
        ({"multiple_of": 0}, "multiple_of=0.*at least 1"),
        ({"scope": "model"}, "scope='model'.*'layer', 'global'"),
        ({"importance": "l3"}, "importance='l3'.*'l1', 'l2', 'batch_normalization'"),
        ({"importance": lambda layer: np.ones(3)}, "shape \\(3,\\) for layer 'first'.*its 8"),
        ({"importance": lambda layer: np.full(8, np.nan)}, "not finite.*its 8 filters"),
        ({"importance": "batch_normalization"}, "none is removed.*another importance"),
        ({"layers": "logits"}, "'logits'.*cannot be made narrower.*'first'"),
        ({"skip": "first"}, "no chosen layer can be made narrower"),
    ],
)
def test_errors_say_what_to_do(options, message):
    model = chain(conv(8, "first"), layers.Flatten(), layers.Dense(8, name="logits"))
    with pytest.raises(ValueError, match=message):
        remove_filters(model, **options)


def test_a_quantization_aware_student_is_refused():
    with pytest.raises(ValueError, match=r"quantization-aware already.*call `strip` first"):
        remove_filters(quantize_aware(chain(conv(4), conv(2))))


def small_net(name=None):
    """For digits, with every kind of coupling that quantization-aware training supports."""
    inputs = keras.Input((28, 28, 1))
    x = conv(16, "stem", strides=2, use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    y = conv(16, "branch", use_bias=False)(x)
    x = layers.ReLU()(layers.Add()([x, layers.BatchNormalization(momentum=0.9)(y)]))
    x = conv(32, "wide", strides=2, activation="relu")(x)
    x = layers.Dense(32, activation="relu", name="hidden")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10, name="logits")(x), name=name)


@pytest.mark.slow
def test_a_smaller_student_is_pruned_quantized_and_converted_like_any_other():
    student = remove_filters(small_net(), 0.5)
    x = np.random.default_rng(0).random((8, 28, 28, 1), dtype="float32")
    file = convert(student)
    np.testing.assert_allclose(file.predict(x), student(x), atol=1e-4)
    assert file.size < convert(small_net()).size / 2
    quantized = quantize_aware(student, x)
    assert convert(quantized, "int8", x).size < file.size
    pruned = prune(student, 0.5, schedule=PolynomialSchedule(end_step=4))
    pruned.compile("adam", "mse")
    pruned.fit(x, np.zeros((8, 10)), epochs=8, verbose=0, callbacks=pruned.training_callbacks())
    stripped = strip(pruned)
    assert summary(stripped).sparsity == pytest.approx(0.5, abs=0.02)
    assert widths(stripped) == widths(student)


@pytest.mark.slow
def test_a_teacher_brings_back_what_removing_filters_has_cost():
    keras.utils.set_random_seed(0)
    digits = load_sample().first(4000, 1000)

    def train(model, epochs):
        loss = cross_entropy()
        model.compile(keras.optimizers.Adam(2e-3), loss, metrics=["accuracy"])
        model.fit(digits.x_train, digits.y_train, epochs=epochs, batch_size=64, verbose=0)

    def accuracy(model):
        answers = model.predict(digits.x_test, verbose=0).argmax(axis=1)
        return float(np.mean(answers == digits.y_test))

    teacher = small_net("teacher")
    train(teacher, 3)
    student = remove_filters(teacher, 0.5)
    whole, damaged = accuracy(teacher), accuracy(student)
    train(keras_kd.Distiller(teacher, student), 2)
    assert damaged < whole - 0.1
    assert accuracy(student) > whole - 0.02
    assert student.count_params() < 0.3 * teacher.count_params()
