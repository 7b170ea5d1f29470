"""Objects of Keras 3 at work in the training of a tf_keras model."""

import keras
import numpy as np
import pytest
import tf_keras

from keras_kd.distiller.translation import (
    KerasCallback,
    KerasLoss,
    KerasMetric,
    KerasSchedule,
    translate_callback,
    translate_loss,
    translate_metric,
    translate_optimizer,
    translate_structure,
)


def linear_model(keras_module):
    return keras_module.Sequential(
        [keras_module.Input((4,)), keras_module.layers.Dense(3, activation="softmax")]
    )


@pytest.fixture
def data():
    generator = np.random.default_rng(5)
    return generator.normal(size=(24, 4)).astype("float32"), generator.integers(0, 3, 24)


OPTIMIZERS = {
    "SGD": {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True},
    "Adam": {"learning_rate": 0.01, "beta_1": 0.8, "amsgrad": True},
    "AdamW": {"learning_rate": 0.01, "weight_decay": 0.1},
    "RMSprop": {"learning_rate": 0.01, "rho": 0.8, "centered": True},
    "Adagrad": {"learning_rate": 0.1},
    "Lion": {"learning_rate": 0.001},
    "Adam_clipped": {"learning_rate": 0.01, "clipnorm": 0.01},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_steps_as_in_keras_3(name, data):
    ours, theirs = linear_model(keras), linear_model(tf_keras)
    theirs.set_weights(ours.get_weights())
    make = getattr(keras.optimizers, name.partition("_")[0])
    for model, optimizer in (
        (ours, make(**OPTIMIZERS[name])),
        (theirs, translate_optimizer(make(**OPTIMIZERS[name]))),
    ):
        model.compile(optimizer, "sparse_categorical_crossentropy")
        model.fit(*data, batch_size=8, epochs=2, shuffle=False, verbose=0)
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


def test_a_learning_rate_schedule_is_followed():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    optimizer = translate_optimizer(keras.optimizers.SGD(schedule))
    assert isinstance(optimizer._learning_rate, KerasSchedule)
    for step in (0, 3, 10):
        np.testing.assert_allclose(
            float(optimizer._learning_rate(step)), float(schedule(step)), rtol=1e-6
        )


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.Adam(gradient_accumulation_steps=2),
        type("Own", (keras.optimizers.SGD,), {})(),
        keras.optimizers.Muon(),
    ],
    ids=["accumulation", "own class", "only in Keras 3"],
)
def test_what_tf_keras_lacks_is_refused(optimizer):
    with pytest.raises(ValueError, match=r"for a tf_keras student\. Expected .* To fix it"):
        translate_optimizer(optimizer)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "none"])
def test_a_loss_keeps_its_value_weights_and_reduction(reduction):
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1, reduction=reduction)
    generator = np.random.default_rng(2)
    y_true = np.eye(3, dtype="float32")[[0, 1, 2, 1]]
    y_pred = generator.dirichlet(np.ones(3), 4).astype("float32")
    weights = np.array([1.0, 0.0, 2.0, 0.5], "float32")
    np.testing.assert_allclose(
        translate_loss(loss)(y_true, y_pred, weights), loss(y_true, y_pred, weights), rtol=1e-6
    )


def test_an_unknown_reduction_is_refused():
    loss = keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")
    with pytest.raises(ValueError, match="reduction='mean_with_sample_weight'"):
        translate_loss(loss)


def test_a_metric_starts_anew_and_measures_the_same():
    metric = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")
    y_true, y_pred = np.array([0, 1]), np.array([[0.6, 0.3, 0.1], [0.6, 0.1, 0.3]], "float32")
    metric.update_state(y_true, y_pred)
    translated = translate_metric(metric)
    assert translated.name == "top2"
    translated.update_state(y_true[:1], y_pred[:1])
    assert float(translated.result()) == 1.0
    translated.update_state(y_true[1:], y_pred[1:])
    assert float(translated.result()) == 0.5
    translated.reset_state()
    assert float(translated.result()) == 0.0


def test_structures_and_what_is_not_of_keras_3_pass():
    own = tf_keras.losses.MeanSquaredError()
    structure = {"a": keras.losses.MeanSquaredError(), "b": ["mse", own], "c": None}
    translated = translate_structure(structure, translate_loss)
    assert isinstance(translated["a"], KerasLoss)
    assert translated["b"] == ["mse", own]
    assert translated["c"] is None
    assert translate_optimizer("adam") == "adam"


@pytest.mark.parametrize(
    "wrapped",
    [
        KerasLoss(keras.losses.Huber(delta=2.0)),
        KerasMetric(keras.metrics.Precision(name="precision")),
        KerasSchedule(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)),
    ],
    ids=["loss", "metric", "schedule"],
)
def test_config_round_trip(wrapped):
    again = type(wrapped).from_config(wrapped.get_config())
    assert again.get_config() == wrapped.get_config()


def test_callbacks_of_keras_3_act_on_a_tf_keras_model(data, tmp_path):
    model = linear_model(tf_keras)
    model.compile(tf_keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    seen = []
    callbacks = [
        keras.callbacks.EarlyStopping("loss", patience=1, min_delta=100.0),
        keras.callbacks.LearningRateScheduler(lambda epoch: 0.5 / (epoch + 1)),
        keras.callbacks.ModelCheckpoint(tmp_path / "best.weights.h5", save_weights_only=True),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch)),
    ]
    history = model.fit(
        *data,
        batch_size=12,
        epochs=9,
        verbose=0,
        callbacks=[translate_callback(callback) for callback in callbacks],
    )
    assert len(history.history["loss"]) == 2, "EarlyStopping did not stop"
    assert float(model.optimizer.learning_rate) == pytest.approx(0.25)
    assert seen == [0, 1, 0, 1]
    assert (tmp_path / "best.weights.h5").exists()
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3


def test_every_hook_is_handed_on():
    hooks = [name for name in dir(keras.callbacks.Callback) if name.startswith("on_")]
    handed_on = [name for name in hooks if name in vars(KerasCallback)]
    # tf_keras calls on_batch_* from on_train_batch_*, and so does Keras 3 itself.
    assert set(hooks) - set(handed_on) == {"on_batch_begin", "on_batch_end"}
