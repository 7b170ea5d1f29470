"""What is wrong with `keras.distillation.Distiller` 3.15.1, and right here."""

import keras
import numpy as np
import pytest

import keras_kd
from keras_kd.losses import LogitsMSE, SoftTargets


def features():
    return keras.distillation.FeatureDistillation(
        loss="mse", teacher_layer_name="hidden", student_layer_name="hidden"
    )


@pytest.fixture
def normalised(dense_model):
    """A student with batch statistics that a forward pass in training moves."""
    return dense_model(seed=2, batch_normalization=True)


def copies(model):
    return [weight.copy() for weight in model.get_weights()]


def largest_change(model, before):
    return max(
        np.abs(now - then).max() for now, then in zip(model.get_weights(), before, strict=True)
    )


def test_the_softmax_and_the_squared_temperature_are_applied(reference_vectors):
    teacher, student = (
        reference_vectors[f"soft_target_T4/{side}_0"].astype("float32")
        for side in ("teacher", "student")
    )
    assert float(SoftTargets(4.0).compute_loss(teacher, student)) == pytest.approx(8.0477, rel=1e-4)


def test_keras_own_default_loss_is_accepted_with_a_warning(teacher, student):
    with pytest.warns(
        UserWarning, match=r"neither softmax nor T\^2.*use keras_kd.losses.SoftTargets"
    ):
        keras_kd.Distiller(teacher, student, keras.distillation.LogitsDistillation(4.0))


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize("losses", [None, [features()]], ids=["outputs", "layers"])
@pytest.mark.parametrize("run_eagerly", [False, True])
def test_evaluate_changes_no_weight(
    teacher, normalised, examples, hard_loss, losses, run_eagerly, dense_model
):
    wide_teacher = dense_model(seed=1)
    distiller = keras_kd.Distiller(wide_teacher, normalised, losses)
    distiller.compile("adam", hard_loss, run_eagerly=run_eagerly, jit_compile=False)
    before, teachers = copies(normalised), copies(wide_teacher)
    distiller.evaluate(*examples, verbose=0)
    distiller.test_on_batch(*examples)
    distiller.predict(examples[0], verbose=0)
    assert largest_change(normalised, before) == 0.0
    assert largest_change(wide_teacher, teachers) == 0.0


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize(
    "losses", [None, [SoftTargets(2.0), features()]], ids=["outputs", "layers"]
)
def test_a_step_runs_the_student_forward_once(dense_model, normalised, examples, hard_loss, losses):
    x, y = examples
    distiller = keras_kd.Distiller(dense_model(seed=1), normalised, losses)
    distiller.compile(keras.optimizers.SGD(0.0), hard_loss, jit_compile=False)
    hidden = keras.Model(normalised.inputs[0], normalised.get_layer("hidden").output)(x).numpy()
    distiller.train_on_batch(x, y)
    # The momentum is 0.5, and the mean was 0: one forward pass moves it half of the way.
    moving_mean = normalised.get_layer("normalization").moving_mean
    np.testing.assert_allclose(moving_mean, 0.5 * hidden.mean(axis=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("losses", [1, 3])
def test_a_step_runs_each_model_forward_once(dense_model, examples, hard_loss, losses):
    calls = []

    @keras.saving.register_keras_serializable(package="tests")
    class Counting(keras.layers.Layer):
        def call(self, inputs, training=None):
            calls.append((self.name, training))
            return inputs

    def counting(name, seed):
        inner = dense_model(seed=seed)
        return keras.Sequential([keras.Input((5,)), Counting(name=name), inner])

    teacher, student = counting("of_teacher", 1), counting("of_student", 2)
    distiller = keras_kd.Distiller(teacher, student, [LogitsMSE() for _ in range(losses)])
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    calls.clear()
    distiller.train_on_batch(*examples)
    assert sorted(calls) == [("of_student", True), ("of_teacher", False)]
    calls.clear()
    distiller.test_on_batch(*examples)
    assert sorted(calls) == [("of_student", False), ("of_teacher", False)]


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("run_eagerly", [False, True])
def test_sample_weights_count_in_both_losses(
    teacher, student, examples, hard_loss, formulas, run_eagerly
):
    x, y = examples
    weights = np.random.default_rng(1).uniform(size=20).astype("float32")
    weights[:10] = 0.0
    soft = formulas.soft_targets(teacher(x).numpy(), student(x).numpy())
    hard = formulas.cross_entropy(y, student(x).numpy())
    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile("sgd", hard_loss, run_eagerly=run_eagerly, jit_compile=False)
    logs = distiller.evaluate(
        x, y, sample_weight=weights, verbose=0, return_dict=True, batch_size=8
    )
    assert logs["student_loss"] == pytest.approx((weights * hard).mean(), rel=1e-5)
    assert logs["distillation_loss"] == pytest.approx((weights * soft).mean(), rel=1e-5)
    before = copies(student)
    distiller.reset_metrics()
    logs = distiller.train_on_batch(x, y, sample_weight=np.zeros(20), return_dict=True)
    assert logs["loss"] == 0.0
    assert largest_change(student, before) == 0.0


def test_class_weights_count_in_both_losses(teacher, student, examples, hard_loss, formulas):
    x, y = examples
    class_weight = {0: 0.0, 1: 2.0, 2: 0.5}
    weights = np.array([class_weight[label] for label in y])
    soft = formulas.soft_targets(teacher(x).numpy(), student(x).numpy())
    hard = formulas.cross_entropy(y, student(x).numpy())
    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile(keras.optimizers.SGD(0.0), hard_loss, jit_compile=False)
    logs = distiller.fit(x, y, class_weight=class_weight, batch_size=8, verbose=0).history
    assert logs["student_loss"] == [pytest.approx((weights * hard).mean(), rel=1e-5)]
    assert logs["distillation_loss"] == [pytest.approx((weights * soft).mean(), rel=1e-5)]


def test_weights_that_a_foreign_loss_cannot_split_are_warned_of(
    dense_model, student, examples, hard_loss
):
    distiller = keras_kd.Distiller(dense_model(seed=1), student, features())
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    with pytest.warns(UserWarning, match="sample weights for FeatureDistillation"):
        distiller.evaluate(*examples, sample_weight=np.ones(20), verbose=0)


@pytest.mark.parametrize("weights", [7.0, [7.0]])
def test_a_single_losss_weight_is_kept(teacher, student, examples, hard_loss, weights):
    x, y = examples
    distiller = keras_kd.Distiller(teacher, student, LogitsMSE(), weights)
    assert distiller.distillation_loss_weights == [7.0]
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    logs = distiller.evaluate(x, y, verbose=0, return_dict=True)
    expected = 7.0 * float(LogitsMSE().compute_loss(teacher(x), student(x)))
    assert logs["distillation_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_extreme_logits_have_their_divergence_and_move_the_student(activation):
    def opposite(sign):
        return keras.Sequential(
            [
                keras.Input((1,)),
                keras.layers.Dense(
                    2,
                    activation=activation,
                    kernel_initializer=keras.initializers.Constant([[sign * 30.0, -sign * 30.0]]),
                ),
            ]
        )

    x = np.ones((1, 1), "float32")
    student = opposite(-1.0)
    distiller = keras_kd.Distiller(opposite(1.0), student, SoftTargets(1.0), student_loss_weight=0)
    distiller.compile(keras.optimizers.SGD(1.0), jit_compile=False)
    assert distiller.train_on_batch(x, return_dict=True)["loss"] == pytest.approx(60.0)
    np.testing.assert_allclose(student.get_weights()[0], [[-29.0, 29.0]])


def test_recompiling_is_possible_and_a_new_optimizer_starts_anew(
    teacher, student, examples, hard_loss
):
    distiller = keras_kd.Distiller(teacher, student)
    optimizer = keras.optimizers.Adam()
    for _ in range(2):
        distiller.compile(optimizer, hard_loss, jit_compile=False)
        distiller.fit(*examples, batch_size=10, verbose=0)
    assert int(optimizer.iterations) == 4


def test_the_teacher_is_frozen_unchanged_and_no_part_of_the_distiller(
    dense_model, student, examples, hard_loss
):
    teacher = dense_model(units=6, seed=1, batch_normalization=True)
    before = copies(teacher)
    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile("adam", hard_loss, jit_compile=False)
    distiller.fit(*examples, epochs=2, verbose=0, validation_data=examples)
    assert largest_change(teacher, before) == 0.0
    assert not teacher.trainable
    assert distiller.count_params() == student.count_params()
    own = {id(weight) for weight in distiller.weights}
    assert own.isdisjoint(id(weight) for weight in teacher.weights)
    assert [id(weight) for weight in distiller.trainable_weights] == [
        id(weight) for weight in student.trainable_weights
    ]
    teacher.trainable = True
    assert len(teacher.trainable_weights) == 6
