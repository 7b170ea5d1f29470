"""Objects of Keras 3 at work in the training of a tf_keras model."""

import contextlib

import keras
import numpy as np
import pytest
import tf_keras

import keras_kd
from keras_kd import compression
from keras_kd._translation import (
    KerasCallback,
    KerasLoss,
    KerasMetric,
    KerasSchedule,
    take_keras_3,
    translate_callback,
    translate_loss,
    translate_metric,
    translate_optimizer,
    translate_structure,
)
from keras_kd.compression import PolynomialSchedule

from _models import labelled


def linear_model(keras_module):
    return keras_module.Sequential(
        [keras_module.Input((4,)), keras_module.layers.Dense(3, activation="softmax")]
    )


@pytest.fixture
def data():
    return labelled(24, (4,), seed=5)


OPTIMIZERS = {
    "SGD": {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True},
    "Adam": {"learning_rate": 0.01, "beta_1": 0.8, "amsgrad": True},
    "AdamW": {"learning_rate": 0.01, "weight_decay": 0.1},
    "RMSprop": {"learning_rate": 0.01, "rho": 0.8, "centered": True},
    "Adagrad": {"learning_rate": 0.1},
    "Lion": {"learning_rate": 0.001},
    "Adam_clipped": {"learning_rate": 0.01, "clipnorm": 0.01},
}


@pytest.mark.fast_rows(3)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_steps_as_in_keras_3(name, data):
    ours, theirs = linear_model(keras), linear_model(tf_keras)
    theirs.set_weights(ours.get_weights())
    make = getattr(keras.optimizers, name.partition("_")[0])
    for model, optimizer in (
        (ours, make(**OPTIMIZERS[name])),
        (theirs, translate_optimizer(make(**OPTIMIZERS[name]))),
    ):
        model.compile(optimizer, "sparse_categorical_crossentropy", run_eagerly=True)
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


class HalfRate(keras.callbacks.Callback):
    """What users write: it reads and sets the learning rate, and looks at layers and weights."""

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self.model.optimizer
        optimizer.learning_rate = 0.5 * float(optimizer.learning_rate)
        optimizer.learning_rate.assign(0.5 * optimizer.learning_rate)
        self.paths = [weight.path for layer in self.model.layers for weight in layer.weights]
        self.steps = int(keras.ops.convert_to_numpy(optimizer.iterations))


CALLBACKS = {
    "EarlyStopping": lambda path: keras.callbacks.EarlyStopping(
        "val_accuracy", patience=1, min_delta=0.03, restore_best_weights=True
    ),
    "ReduceLROnPlateau": lambda path: keras.callbacks.ReduceLROnPlateau(
        "val_accuracy", patience=1, min_delta=0.5, factor=0.5
    ),
    "on another metric": lambda path: keras.callbacks.ReduceLROnPlateau(
        "val_top2", patience=1, min_delta=0.5, factor=0.5
    ),
    "LearningRateScheduler": lambda path: keras.callbacks.LearningRateScheduler(
        lambda epoch, rate: 0.9 * rate
    ),
    "ModelCheckpoint": lambda path: keras.callbacks.ModelCheckpoint(
        path / "best.keras", monitor="val_accuracy", save_best_only=True
    ),
    "BackupAndRestore": lambda path: keras.callbacks.BackupAndRestore(path / "backup"),
    # Those that only look on.
    "several": lambda path: [
        keras.callbacks.CSVLogger(path / "log.csv"),
        keras.callbacks.RemoteMonitor("http://127.0.0.1:9"),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.History(),
        keras.callbacks.ProgbarLogger(),
    ],
    "own": lambda path: HalfRate(),
}


@pytest.fixture(scope="module")
def twins():
    """A Keras 3 model, its twin in tf_keras, and the weights that both begin with."""
    keras.utils.set_random_seed(1)
    model = linear_model(keras)
    return model, compression.to_tf_keras(model), model.get_weights()


@pytest.mark.fast_rows(3)
@pytest.mark.filterwarnings("ignore:Could not reach RemoteMonitor")
@pytest.mark.filterwarnings("ignore:`requests` is not installed")
@pytest.mark.parametrize("name", CALLBACKS)
def test_the_own_fit_of_a_student_does_what_keras_3_does(name, data, twins, tmp_path):
    x, y = data
    *models, weights = twins
    histories = []
    for model in models:
        model.set_weights(weights)
        model.compile(
            keras.optimizers.RMSprop(0.1),
            keras.losses.SparseCategoricalCrossentropy(),
            metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")],
            run_eagerly=True,
        )
        path = tmp_path / type(model).__module__.partition(".")[0]
        path.mkdir()
        callback = CALLBACKS[name](path)
        histories.append(
            model.fit(
                x[:16],
                y[:16],
                validation_data=(x[16:], y[16:]),
                epochs=4,
                shuffle=False,
                verbose=0,
                callbacks=callback if name == "several" else [callback],
            ).history
        )
    ours, theirs = histories
    assert ours.keys() == theirs.keys()
    for key in ours:
        np.testing.assert_allclose(theirs[key], ours[key], rtol=1e-4, atol=1e-5, err_msg=key)
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
    assert sorted(file.name for file in (tmp_path / "keras").iterdir()) == sorted(
        file.name for file in (tmp_path / "tf_keras").iterdir()
    )
    if name == "own":
        assert [path.split("/")[-1] for path in callback.paths] == ["kernel", "bias"]
        assert callback.steps == 4


def test_the_first_step_of_a_student_is_traced_once(data):
    traces = []

    def counted_metric(y, outputs):
        traces.append(y)
        return keras.ops.sum(outputs, axis=-1)

    student = take_keras_3(linear_model(tf_keras))
    student.compile(
        keras.optimizers.Adam(0.1),
        keras.losses.SparseCategoricalCrossentropy(),
        metrics=[counted_metric, "accuracy"],
    )
    student.fit(*data, batch_size=8, epochs=2, verbose=0)
    assert len(traces) == 1
    assert int(student.optimizer.iterations) == 6


def test_averaged_weights_are_swapped_in_for_evaluation_and_in_the_end(data):
    x, y = data
    student = take_keras_3(linear_model(tf_keras))
    # In RMSprop of tf_keras the averages would overwrite the weights every 100 steps.
    optimizer = keras.optimizers.RMSprop(0.1, use_ema=True, ema_momentum=0.9)
    student.compile(optimizer, "sparse_categorical_crossentropy", run_eagerly=True)
    assert student.optimizer.ema_overwrite_frequency is None
    averages = [weight.astype("float64") for weight in student.get_weights()]

    def average(batch, logs):
        for index, weight in enumerate(student.get_weights()):
            averages[index] = 0.9 * averages[index] + 0.1 * weight

    history = student.fit(
        x,
        y,
        validation_data=(x, y),
        epochs=3,
        verbose=0,
        callbacks=[
            keras.callbacks.LambdaCallback(on_train_batch_end=average),
            keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
        ],
    ).history
    for weight, expected in zip(student.get_weights(), averages, strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-5, atol=1e-6)
    kernel, bias = averages
    logits = x @ kernel + bias
    expected = np.mean(np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(y)), y])
    assert history["val_loss"][-1] == pytest.approx(expected, rel=1e-5)


class Summaries:
    """In place of `tf.summary`, which needs TensorBoard to be installed."""

    def __init__(self):
        self.scalars, self.histograms = {}, {}

    @contextlib.contextmanager
    def _anything(self, *args, **kwargs):
        yield self

    as_default = record_if = _anything

    def create_file_writer(self, path):
        return self

    def scalar(self, name, value, step):
        self.scalars[name] = float(value)

    def histogram(self, name, value, step):
        self.histograms[name] = np.array(value)

    def flush(self):
        pass

    close = flush


class OwnTensorBoard(keras.callbacks.TensorBoard):
    """Subclasses are common: they log more."""


@pytest.mark.parametrize("kind", [keras.callbacks.TensorBoard, OwnTensorBoard])
@pytest.mark.parametrize("around", ["alone", "distiller"])
def test_tensorboard_sees_weights_and_the_learning_rate(kind, around, data, tmp_path):
    student = compression.prune(linear_model(keras), 0.5, schedule=PolynomialSchedule(end_step=1))
    model = student
    if around == "distiller":
        model = keras_kd.Distiller(linear_model(keras), student)
    model.compile(
        keras.optimizers.SGD(0.25), keras.losses.SparseCategoricalCrossentropy(), run_eagerly=True
    )
    callback = kind(tmp_path, histogram_freq=1, write_graph=False)
    callback._summary_module = written = Summaries()
    callbacks = [callback]
    if around == "alone":
        callbacks += student.training_callbacks()
    model.fit(*data, epochs=2, verbose=0, callbacks=callbacks)
    assert written.scalars["epoch_learning_rate"] == 0.25
    assert "epoch_loss" in written.scalars
    kernels = [value for name, value in written.histograms.items() if "kernel" in name]
    np.testing.assert_array_equal(kernels[0], student.layers[-1].layer.kernel.numpy())


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_student_trained_with_keras_3_objects_saves_loads_and_strips(suffix, data, tmp_path):
    pruned = compression.prune(linear_model(keras), 0.5, schedule=PolynomialSchedule(end_step=1))
    pruned.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 10)),
        keras.losses.SparseCategoricalCrossentropy(),
        [keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")],
        run_eagerly=True,
    )
    pruned.fit(*data, epochs=2, verbose=0, callbacks=pruned.training_callbacks())
    measured = pruned.evaluate(*data, verbose=0)
    path = tmp_path / f"student{suffix}"
    pruned.save(path)
    loaded = compression.load(path)
    loaded.run_eagerly = True
    np.testing.assert_allclose(loaded.evaluate(*data, verbose=0), measured, rtol=1e-5)
    loaded.fit(*data, verbose=0, callbacks=[HalfRateOnly(), *loaded.training_callbacks()])
    stripped = compression.strip(pruned)
    np.testing.assert_array_equal(
        stripped.predict(data[0], verbose=0), pruned.predict(data[0], verbose=0)
    )
    # In a file it is what tf_keras reads without this package.
    assert (type(pruned).__module__, type(pruned).__name__) == (
        "tf_keras.src.engine.functional",
        "Functional",
    )


class HalfRateOnly(keras.callbacks.Callback):
    """A callback that needs nothing of the optimizer but its count."""

    def on_train_batch_end(self, batch, logs=None):
        assert int(self.model.optimizer.iterations) > 0


def test_own_classes_are_found_when_a_student_is_loaded(data, tmp_path):
    class Margin(keras.losses.Loss):
        def call(self, y_true, y_pred):
            # Keras 3 gives both in the precision of the loss.
            assert y_true.dtype == y_pred.dtype
            return keras.ops.mean(keras.ops.square(y_pred - y_true), axis=-1)

    x, y = data
    student = compression.to_tf_keras(linear_model(keras))
    student.compile("sgd", Margin(), run_eagerly=True)
    targets = np.eye(3, dtype="int64")[y]
    measured = student.evaluate(x, targets, verbose=0)
    expected = np.mean(np.square(student.predict(x, verbose=0).astype("float64") - targets))
    assert measured == pytest.approx(expected, rel=1e-5)
    student.save(tmp_path / "student.keras")
    loaded = compression.load(tmp_path / "student.keras", {"Margin": Margin})
    assert loaded.evaluate(x, targets, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_names_that_only_keras_3_knows(data):
    x, y = data
    student = take_keras_3(linear_model(tf_keras))
    targets = np.eye(3, dtype="float32")[y]
    # Options of Keras 3 that say "as you do" are taken, too.
    options = {"jit_compile": "auto", "auto_scale_loss": True, "run_eagerly": True}
    student.compile("sgd", "dice", ["f1_score", "accuracy"], **options)
    logs = student.evaluate(x, targets, verbose=0, return_dict=True)
    outputs = student.predict(x, verbose=0)
    assert logs["loss"] == pytest.approx(float(keras.losses.dice(targets, outputs).numpy().mean()))
    f1 = keras.metrics.F1Score()
    f1.update_state(targets, outputs)
    np.testing.assert_allclose(logs["f1_score"], f1.result())
    right = np.mean(np.argmax(outputs, -1) == y)
    assert logs["accuracy"] == pytest.approx(right)


def test_arguments_by_position(data):
    student = take_keras_3(linear_model(tf_keras))
    student.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    seen = []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    student.fit(*data, 8, 2, 0, [callback])
    assert seen == [0, 1]
    student.fit(*data, verbose=0, callbacks=keras.callbacks.CallbackList([callback]))
    assert seen == [0, 1, 0]


@pytest.mark.parametrize("name", ["BackupAndRestore", "OrbaxCheckpoint"])
def test_callbacks_that_read_the_state_of_keras_3_optimizers_are_refused(name):
    kind = getattr(keras.callbacks, name, None)
    if kind is None:
        pytest.skip(f"this Keras has no {name}")
    own = type("Own", (kind,), {"__init__": lambda self: None})
    with pytest.raises(ValueError, match=rf"Own, a kind of keras\.callbacks\.{name}, for a tf_"):
        translate_callback(own())


def test_a_metric_without_direction_is_asked_for_as_in_keras_3(data):
    student = take_keras_3(linear_model(tf_keras))
    student.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    stopping = keras.callbacks.EarlyStopping("unknown")
    with pytest.raises(ValueError, match="Pass `mode='max'`"):
        student.fit(*data, verbose=0, callbacks=[stopping])
