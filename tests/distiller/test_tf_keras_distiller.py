"""The Distiller with tf_keras students: the same results, from the objects of either Keras."""

import keras
import numpy as np
import pytest
import tf_keras

import keras_kd
from keras_kd.distiller.tf_keras_distiller import TfKerasDistiller
from keras_kd.losses import LogitsMSE

from _models import labelled

CLASSES = 3
FEATURES = 8


def build(keras_module, units=6, activation="softmax"):
    keras_module.utils.set_random_seed(units)
    inputs = keras_module.Input((FEATURES,))
    hidden = keras_module.layers.Dense(units, activation="relu", name="hidden")(inputs)
    hidden = keras_module.layers.BatchNormalization(name="normalization")(hidden)
    outputs = keras_module.layers.Dense(CLASSES, activation=activation, name="scores")(hidden)
    return keras_module.Model(inputs, outputs)


@pytest.fixture
def data():
    return labelled(50, (FEATURES,), CLASSES)


@pytest.fixture
def teacher():
    keras.utils.set_random_seed(1)
    return build(keras, units=16)


def twins():
    """The same student in both Kerases."""
    ours, theirs = build(keras), build(tf_keras)
    theirs.set_weights(ours.get_weights())
    return ours, theirs


def assert_same_weights(one, other, tolerance=1e-6):
    for first, second in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(first, second, atol=tolerance)


def test_the_student_chooses_the_flavour(teacher):
    distiller = keras_kd.Distiller(teacher, build(tf_keras))
    assert isinstance(distiller, TfKerasDistiller)
    assert isinstance(distiller, tf_keras.Model)
    assert isinstance(distiller, keras_kd.Distiller)
    assert not isinstance(build(tf_keras), keras_kd.Distiller)
    assert isinstance(keras_kd.Distiller(teacher, build(keras)), keras.Model)


def test_a_subclass_for_keras_3_refuses_a_tf_keras_student(teacher):
    class Own(keras_kd.Distiller):
        pass

    with pytest.raises(ValueError, match=r"subclass of keras_kd\.Distiller.*TfKerasDistiller"):
        Own(teacher, build(tf_keras))


@pytest.mark.parametrize("keras_module", [keras, tf_keras])
def test_both_take_the_same_arguments(teacher, keras_module):
    distiller = keras_kd.Distiller(
        teacher, build(keras_module), [LogitsMSE()], [2.0], 0.25, "name", save_teacher=False
    )
    assert distiller.distillation_loss_weights == [2.0]
    assert distiller.student_loss_weight == 0.25
    assert distiller.name == "name"
    assert not distiller.save_teacher


def test_same_weights_and_logs_as_the_keras_3_flavour(teacher, data):
    x, y = data
    weights = np.linspace(0, 2, len(x)).astype("float32")
    histories = []
    students = twins()
    for student in students:
        distiller = keras_kd.Distiller(teacher, student, student_loss_weight=0.3)
        distiller.compile(
            keras.optimizers.SGD(0.1, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(),
            metrics=["accuracy"],
        )
        histories.append(
            distiller.fit(
                x,
                y,
                sample_weight=weights,
                batch_size=16,  # the last of four batches is smaller
                epochs=1,
                shuffle=False,
                validation_data=(x, y),
                verbose=0,
            ).history
        )
    assert_same_weights(*students)
    assert set(histories[0]) == set(histories[1])
    for name, values in histories[0].items():
        np.testing.assert_allclose(histories[1][name], values, rtol=1e-5, err_msg=name)


def test_evaluate_changes_no_weight_and_the_teacher_is_no_part(teacher, data):
    distiller = keras_kd.Distiller(teacher, build(tf_keras))
    distiller.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    before = [weight.copy() for weight in distiller.get_weights()]
    teacher_before = teacher.get_weights()
    results = distiller.evaluate(*data, verbose=0, return_dict=True)
    assert list(results) == ["loss", "student_loss", "distillation_loss", "total_loss"]
    for one, other in zip(before, distiller.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    distiller.fit(*data, verbose=0)
    for one, other in zip(teacher_before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    model_weights = {id(weight) for weight in distiller.weights}
    assert not model_weights & {id(weight) for weight in teacher.weights}


def test_one_forward_pass_moves_batch_normalization_once(teacher, data):
    x, y = data
    student = build(tf_keras)
    layer = student.get_layer("normalization")
    hidden = tf_keras.Model(student.input, student.get_layer("hidden").output)(x).numpy()
    distiller = keras_kd.Distiller(
        teacher, student, keras.distillation.FeatureDistillation("mse", "scores", "scores")
    )
    distiller.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    distiller.train_on_batch(x, y)
    expected = (1 - layer.momentum) * hidden.mean(axis=0)
    np.testing.assert_allclose(layer.moving_mean.numpy(), expected, rtol=1e-4, atol=1e-7)


def test_logits_and_softmax_teach_the_same(teacher, data):
    x, y = data
    losses = []
    for activation in ("softmax", None):
        student = build(tf_keras, activation=activation)
        tf_keras.utils.set_random_seed(3)
        student.set_weights(
            [
                np.full(w.shape, 0.1) + np.arange(w.size).reshape(w.shape) * 0.01
                for w in student.get_weights()
            ]
        )
        distiller = keras_kd.Distiller(teacher, student, student_loss_weight=0.0)
        distiller.compile("sgd", run_eagerly=True)
        losses.append(distiller.evaluate(x, y, verbose=0, return_dict=True)["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"jit_compile": True}, {"run_eagerly": True}, {"steps_per_execution": 2}]
)
def test_ways_to_run_a_step(teacher, data, options):
    distiller = keras_kd.Distiller(teacher, build(tf_keras))
    optimizer = keras.optimizers.Adam(0.02)
    distiller.compile(optimizer, "sparse_categorical_crossentropy", **options)
    history = distiller.fit(*data, batch_size=25, epochs=5, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize(
    "options",
    [{}, pytest.param({"jit_compile": True}, marks=pytest.mark.slow), {"run_eagerly": True}],
)
def test_a_teacher_of_nan_is_named_and_the_student_stays_whole(teacher, data, options):
    # In the last layer: what the processor computes of a ReLU may be finite for NaN.
    kernel = teacher.get_layer("scores").kernel
    kernel.assign(kernel * np.nan)
    teacher.name = "broken_teacher"
    distiller = keras_kd.Distiller(teacher, build(tf_keras))
    distiller.compile("sgd", "sparse_categorical_crossentropy", **options)
    with pytest.raises(ValueError, match=r"NaN or infinite outputs from the teacher 'broken_"):
        distiller.fit(*data, verbose=0)
    assert all(np.isfinite(weight).all() for weight in distiller.student.get_weights())


def test_a_tf_keras_teacher(data):
    distiller = keras_kd.Distiller(build(tf_keras, units=16), build(tf_keras))
    distiller.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    assert np.isfinite(distiller.fit(*data, verbose=0).history["loss"]).all()
    assert len(distiller.trainable_variables) == len(distiller.student.trainable_variables)


class Batches(keras.utils.PyDataset):
    """Four batches, and a count of its epochs."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y, self.epochs = x[:40], y[:40], 0

    def __len__(self):
        return 4

    def __getitem__(self, index):
        batch = slice(10 * index, 10 * index + 10)
        return self.x[batch], self.y[batch]

    def on_epoch_end(self):
        self.epochs += 1


def test_a_dataset_of_keras_3_is_read_as_in_keras_3(teacher, data):
    x, y = data
    batches = Batches(x, y)
    ours, theirs = (keras_kd.Distiller(teacher, student) for student in twins())
    for distiller in (ours, theirs):
        distiller.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
        history = distiller.fit(
            batches, epochs=2, shuffle=False, verbose=0, validation_data=Batches(x, y)
        ).history
        assert "val_loss" in history
    assert_same_weights(ours.student, theirs.student)
    assert batches.epochs >= 4
    expected = ours.evaluate(x[:40], y[:40], batch_size=10, verbose=0, return_dict=True)
    evaluated = theirs.evaluate(batches, verbose=0, return_dict=True)
    assert evaluated == pytest.approx(expected, abs=1e-5)
    assert theirs.predict(batches, verbose=0).shape == (40, CLASSES)


@pytest.mark.parametrize("name", ["distiller.keras", "distiller.h5", "distiller"])
def test_a_file_that_could_not_be_loaded_is_not_written(teacher, tmp_path, name):
    distiller = keras_kd.Distiller(teacher, build(tf_keras))
    with pytest.raises(ValueError, match=r"save 'distiller'.*student\.save.*save_weights_only"):
        distiller.save(tmp_path / name)
    assert not any(tmp_path.iterdir())


def test_gradients_too_small_for_float16_still_teach(teacher, data):
    x, y = data
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        student = build(tf_keras)
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    before = student.get_layer("hidden").kernel.numpy()
    distiller = keras_kd.Distiller(teacher, student, student_loss_weight=1.0)
    distiller.compile(
        keras.optimizers.SGD(1e6),
        lambda y_true, y_pred: 1e-8 * keras.ops.square(keras.ops.cast(y_pred, "float32")[:, 0]),
        run_eagerly=True,
    )
    distiller.fit(x, y, verbose=0)
    assert np.mean(student.get_layer("hidden").kernel.numpy() != before) > 0.5


def test_several_outputs_some_without_distillation(data):
    x, y = data

    def two_headed(keras_module):
        inputs = keras_module.Input((FEATURES,))
        label = keras_module.layers.Dense(CLASSES, activation="softmax", name="label")(inputs)
        size = keras_module.layers.Dense(1, name="size")(inputs)
        return keras_module.Model(inputs, {"label": label, "size": size})

    distiller = keras_kd.Distiller(
        two_headed(keras), two_headed(tf_keras), keras_kd.losses.SoftTargets(outputs="label")
    )
    losses = {"label": "sparse_categorical_crossentropy", "size": "mse"}
    distiller.compile("sgd", losses, run_eagerly=True)
    labels = {"label": y, "size": np.zeros((len(y), 1), "float32")}
    history = distiller.fit(x, labels, verbose=0).history
    assert {"label_loss", "size_loss", "loss"} <= set(history)


def test_learning_from_the_teacher_alone_without_labels(teacher, data):
    x, _ = data
    distiller = keras_kd.Distiller(teacher, build(tf_keras), student_loss_weight=0.0)
    distiller.compile(keras.optimizers.Adam(0.05), run_eagerly=True)
    history = distiller.fit(x, epochs=6, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]


def test_no_loss_on_labels_is_refused(teacher):
    distiller = keras_kd.Distiller(teacher, build(tf_keras))
    with pytest.raises(ValueError, match=r"loss=None with student_loss_weight=0\.5"):
        distiller.compile("adam")


def test_regularization_counts_once(teacher, data):
    inputs = tf_keras.Input((FEATURES,))
    layer = tf_keras.layers.Dense(CLASSES, activation="softmax", kernel_regularizer="l2")
    student = tf_keras.Model(inputs, layer(inputs))
    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    logs = distiller.evaluate(*data, verbose=0, return_dict=True)
    penalty = 0.01 * np.square(layer.kernel.numpy()).sum()
    expected = 0.5 * logs["student_loss"] + 0.5 * logs["distillation_loss"] + penalty
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("module", [keras, tf_keras])
def test_backup_and_restore_resumes_without_the_teacher(teacher, data, tmp_path, module):
    x, y = data

    def run(student, epochs, **options):
        distiller = keras_kd.Distiller(teacher, student)
        distiller.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
        distiller.fit(x, y, epochs=epochs, shuffle=False, verbose=0, **options)
        return distiller

    class Stop(Exception):
        pass

    def stop(epoch, logs):
        if epoch == 1:
            raise Stop

    start = build(tf_keras)
    whole, halted = build(tf_keras), build(tf_keras)
    whole.set_weights(start.get_weights())
    halted.set_weights(start.get_weights())
    run(whole, 3)
    with pytest.raises(Stop):
        run(
            halted,
            3,
            callbacks=[
                module.callbacks.BackupAndRestore(str(tmp_path)),
                tf_keras.callbacks.LambdaCallback(on_epoch_begin=stop),
            ],
        )
    resumed = build(tf_keras)
    run(resumed, 3, callbacks=[module.callbacks.BackupAndRestore(str(tmp_path))])
    assert_same_weights(whole, resumed)


class TestCompressedStudents:
    """Students of TF-MOT itself; those of `keras_kd.compression` are tested with it."""

    def test_pruning_steps_once_per_step_and_reaches_its_sparsity(self, teacher, data):
        tfmot = pytest.importorskip("tensorflow_model_optimization")
        student = tfmot.sparsity.keras.prune_low_magnitude(
            build(tf_keras),
            pruning_schedule=tfmot.sparsity.keras.ConstantSparsity(0.5, 0, -1, frequency=1),
        )
        distiller = keras_kd.Distiller(teacher, student)
        distiller.compile(
            keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", run_eagerly=True
        )
        distiller.fit(*data, batch_size=10, epochs=2, verbose=0)
        steps = [int(layer.pruning_step) for layer in student.layers if "prune" in layer.name]
        assert set(steps) == {10}
        stripped = tfmot.sparsity.keras.strip_pruning(student)
        for name in ("hidden", "scores"):
            assert np.mean(stripped.get_layer(name).kernel.numpy() == 0) == pytest.approx(0.5)

    def test_layers_of_a_wrapped_student_are_found_by_their_own_names(self, teacher, data):
        tfmot = pytest.importorskip("tensorflow_model_optimization")
        inputs = tf_keras.Input((FEATURES,))
        hidden = tf_keras.layers.Dense(16, activation="relu", name="hidden")(inputs)
        outputs = tf_keras.layers.Dense(CLASSES, activation="softmax", name="scores")(hidden)
        student = tfmot.quantization.keras.quantize_model(tf_keras.Model(inputs, outputs))
        distiller = keras_kd.Distiller(
            teacher,
            student,
            [
                keras_kd.losses.SoftTargets(),
                keras.distillation.FeatureDistillation("mse", "hidden", "hidden"),
            ],
        )
        optimizer = keras.optimizers.Adam(0.02)
        distiller.compile(
            optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True
        )
        history = distiller.fit(*data, epochs=5, verbose=0).history
        assert history["loss"][-1] < history["loss"][0]
