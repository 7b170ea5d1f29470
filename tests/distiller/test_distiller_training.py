"""Ways to train: precision, compilation, kinds of data, masks, callbacks."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_kd
from keras_kd.distiller.tf_keras_distiller import TfKerasDistiller
from keras_kd.losses import SoftTargets


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_learns(dense_model, teacher, examples, hard_loss, policy):
    student = dense_model(seed=2, dtype=policy)
    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile(keras.optimizers.Adam(0.05), hard_loss, jit_compile=False)
    scales = isinstance(distiller.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scales == (policy == "mixed_float16")
    history = distiller.fit(*examples, epochs=10, verbose=0).history
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    assert {weight.dtype for weight in student.weights} == {"float32"}


def test_small_gradients_survive_float16(dense_model, teacher, examples):
    # Without the scaled loss a gradient of 1e-8 is 0 in float16.
    student = dense_model(seed=2, dtype="mixed_float16")
    before = student.get_weights()[0]
    distiller = keras_kd.Distiller(
        teacher, student, SoftTargets(4.0), [1e-7], student_loss_weight=0.0
    )
    distiller.compile(keras.optimizers.SGD(1e7), run_eagerly=True)
    distiller.optimizer.initial_scale = 2.0**15
    distiller.train_on_batch(examples[0])
    assert np.abs(student.get_weights()[0] - before).max() > 1e-4


@pytest.fixture
def expected_weights(dense_model, examples, hard_loss):
    """What four epochs in batches of 5 come to, step by step and eagerly."""
    student = dense_model(seed=3)
    distiller = keras_kd.Distiller(dense_model(units=6, seed=1), student)
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    distiller.fit(*examples, batch_size=5, epochs=2, shuffle=False, verbose=0)
    return student.get_weights()


COMPILE_OPTIONS = {
    "jit": {"jit_compile": True},
    "graph": {"jit_compile": False},
    "three steps per execution": {"steps_per_execution": 3, "jit_compile": False},
}


@pytest.mark.parametrize("options", COMPILE_OPTIONS.values(), ids=COMPILE_OPTIONS)
def test_compiled_training_equals_eager_training(
    dense_model, examples, hard_loss, expected_weights, options
):
    student = dense_model(seed=3)
    distiller = keras_kd.Distiller(dense_model(units=6, seed=1), student)
    distiller.compile("sgd", hard_loss, **options)
    distiller.fit(*examples, batch_size=5, epochs=2, shuffle=False, verbose=0)
    for weights, expected in zip(student.get_weights(), expected_weights, strict=True):
        np.testing.assert_allclose(weights, expected, atol=1e-5)


def as_dataset(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(5)


def as_generator(x, y):
    for start in 2 * list(range(0, 20, 5)):
        yield x[start : start + 5], y[start : start + 5]


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 4

    def __getitem__(self, index):
        batch = slice(5 * index, 5 * index + 5)
        return self.x[batch], self.y[batch]


@pytest.mark.parametrize("data", [as_dataset, as_generator, Batches])
def test_kinds_of_data(dense_model, examples, hard_loss, expected_weights, data):
    student = dense_model(seed=3)
    distiller = keras_kd.Distiller(dense_model(units=6, seed=1), student)
    # Of the three, one in a graph.
    distiller.compile("sgd", hard_loss, run_eagerly=data is not as_dataset)
    steps = {"steps_per_epoch": 4} if data is as_generator else {}
    distiller.fit(data(*examples), epochs=2, shuffle=False, verbose=0, **steps)
    for weights, expected in zip(student.get_weights(), expected_weights, strict=True):
        np.testing.assert_allclose(weights, expected, atol=1e-5)


def test_batch_by_batch(dense_model, examples, hard_loss, expected_weights):
    student = dense_model(seed=3)
    distiller = keras_kd.Distiller(dense_model(units=6, seed=1), student)
    distiller.compile("sgd", hard_loss, jit_compile=False)
    for x, y in as_generator(*examples):
        distiller.train_on_batch(x, y)
    for weights, expected in zip(student.get_weights(), expected_weights, strict=True):
        np.testing.assert_allclose(weights, expected, atol=1e-5)


def token_model(seed, *, embedding=True):
    """Logits for every position; zeros in the inputs are padding."""
    keras.utils.set_random_seed(seed)
    wide = keras.initializers.RandomNormal(stddev=1.0)
    if embedding:
        inputs = keras.Input((4,), dtype="int32")
        hidden = keras.layers.Embedding(6, 3, mask_zero=True, embeddings_initializer=wide)(inputs)
    else:
        inputs = keras.Input((4, 2))
        hidden = keras.layers.Masking()(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, kernel_initializer=wide)(hidden))


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize("embedding", [False, True])
def test_padding_counts_in_neither_loss(hard_loss, formulas, embedding, run_eagerly):
    mask = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]], bool)
    random = np.random.default_rng(0)
    if embedding:
        x = random.integers(1, 6, size=mask.shape) * mask
    else:
        x = random.normal(size=(*mask.shape, 2)).astype("float32") * mask[..., None]
    y = random.integers(0, 3, size=mask.shape)
    weights = random.uniform(0.5, 2.0, size=mask.shape).astype("float32")
    teacher, student = token_model(1, embedding=embedding), token_model(2, embedding=embedding)
    distiller = keras_kd.Distiller(teacher, student, SoftTargets(2.0))
    distiller.compile("sgd", hard_loss, run_eagerly=run_eagerly, jit_compile=False)
    logs = distiller.test_on_batch(x, y, sample_weight=weights, return_dict=True)
    soft = formulas.soft_targets(teacher(x).numpy(), student(x).numpy(), 2.0)
    hard = formulas.cross_entropy(y, student(x).numpy())
    for name, values in (("distillation_loss", soft), ("student_loss", hard)):
        expected = (values * weights * mask).sum() / mask.sum()
        assert logs[name] == pytest.approx(expected, rel=1e-5), name


def test_learning_rate_schedules_and_callbacks(teacher, student, examples, hard_loss, tmp_path):
    schedule = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=100)
    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile(keras.optimizers.SGD(schedule), hard_loss, run_eagerly=True)
    best = tmp_path / "best.weights.h5"
    history = distiller.fit(
        *examples,
        validation_data=examples,
        epochs=4,
        verbose=0,
        callbacks=[
            keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True),
            keras.callbacks.ModelCheckpoint(best, save_best_only=True, save_weights_only=True),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        ],
    ).history
    assert int(distiller.optimizer.iterations) == len(history["loss"])
    evaluated = distiller.evaluate(*examples, verbose=0, return_dict=True)
    assert evaluated["loss"] == pytest.approx(min(history["val_loss"]), rel=1e-5)
    distiller.load_weights(best)
    evaluated = distiller.evaluate(*examples, verbose=0, return_dict=True)
    assert evaluated["loss"] == pytest.approx(min(history["val_loss"]), rel=1e-5)
    header = (tmp_path / "log.csv").read_text().splitlines()[0]
    assert {"loss", "total_loss", "student_loss", "distillation_loss"} <= set(header.split(","))


def test_the_learning_rate_falls_on_a_plateau(teacher, student, examples, hard_loss):
    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile(keras.optimizers.SGD(1e-12), hard_loss, run_eagerly=True)
    plateau = keras.callbacks.ReduceLROnPlateau(
        "loss", factor=0.1, patience=1, min_delta=0.1, min_lr=0
    )
    distiller.fit(*examples, epochs=3, verbose=0, callbacks=[plateau])
    assert float(distiller.optimizer.learning_rate) < 5e-13


class Interrupted(Exception):
    pass


class Interrupt(keras.callbacks.Callback):
    """Stops the training as a crash in the given epoch would."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise Interrupted


def test_a_backup_resumes_where_a_crash_interrupted(
    dense_model, teacher, examples, hard_loss, tmp_path
):
    def train(callbacks):
        student = dense_model(seed=3)
        distiller = keras_kd.Distiller(teacher, student)
        distiller.compile("adam", hard_loss, jit_compile=False)
        distiller.fit(
            *examples, epochs=4, batch_size=8, shuffle=False, verbose=0, callbacks=callbacks
        )
        return student.get_weights()

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    expected = train([])
    with pytest.raises(Interrupted):
        train([backup(), Interrupt(2)])
    # This distiller has just been built: Keras' own raises here.
    for weights, uninterrupted in zip(train([backup()]), expected, strict=True):
        np.testing.assert_array_equal(weights, uninterrupted)


@pytest.mark.parametrize("keras_module", [keras, tf_keras])
def test_a_subclass_may_override_compute_loss(keras_module, teacher, examples):
    base = keras_kd.Distiller if keras_module is keras else TfKerasDistiller
    x, y = examples

    class Penalized(base):
        def compute_loss(self, *args, **kwargs):
            return super().compute_loss(*args, **kwargs) + 100.0

    layers = keras_module.layers
    student = keras_module.Sequential([keras_module.Input(x.shape[1:]), layers.Dense(3)])
    passes = []
    student.layers[-1].activation = lambda scores: passes.append(1) or scores
    distiller = Penalized(teacher, student)
    distiller.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    logs = distiller.train_on_batch(x, y, return_dict=True)
    assert len(passes) == 1
    assert logs["loss"] == pytest.approx(logs["total_loss"] + 100.0, rel=1e-5)
