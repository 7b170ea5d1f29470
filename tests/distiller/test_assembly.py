"""Parts of a distiller that are replaced by others, with all that follows."""

import keras
import numpy as np
import pytest

import keras_kd
from keras_kd.compression import to_tf_keras
from keras_kd.losses import Hint, LogitsMSE, SoftTargets
from keras_kd.teachers import MovingAverage

FLAVOURS = pytest.mark.parametrize("flavour", ["keras", "tf_keras"])


def of(flavour, model):
    return to_tf_keras(model) if flavour == "tf_keras" else model


def train(distiller, examples, **options):
    return distiller.fit(*examples, batch_size=10, shuffle=False, verbose=0, **options)


def compiled(distiller, loss, optimizer=None, **options):
    optimizer = optimizer or keras.optimizers.SGD(0.1, momentum=0.5)
    distiller.compile(optimizer, loss, ["accuracy"], **options)
    return distiller


def arrays(model):
    return [np.array(weight) for weight in model.get_weights()]


def equal(one, other, **options):
    assert len(one) == len(other)
    for weight, another in zip(one, other, strict=True):
        np.testing.assert_allclose(weight, another, **{"rtol": 0, "atol": 1e-6, **options})


class TestStudent:
    @pytest.mark.fast_rows(2)
    @pytest.mark.parametrize(
        ("flavour", "moment"),
        [
            ("keras", "before compile"),
            ("keras", "after fit"),
            ("tf_keras", "after fit"),
            pytest.param("keras", "after compile", marks=pytest.mark.slow),
            pytest.param("tf_keras", "before compile", marks=pytest.mark.slow),
            pytest.param("tf_keras", "after compile", marks=pytest.mark.slow),
        ],
    )
    def test_the_new_one_learns_what_it_learns_in_a_new_distiller(
        self, teacher, dense_model, examples, hard_loss, flavour, moment
    ):
        first, new, twin = (of(flavour, dense_model(units=n, seed=n)) for n in (4, 7, 7))
        losses = [Hint("hidden", "hidden"), SoftTargets(2.0)]
        distiller = keras_kd.Distiller(teacher, first, losses, [2.0, 1.0])
        if moment != "before compile":
            compiled(distiller, hard_loss)
        if moment == "after fit":
            train(distiller, examples)
        before = arrays(first)
        keras.utils.set_random_seed(3)
        distiller.student = new
        assert distiller.student is new
        if moment == "before compile":
            compiled(distiller, hard_loss)
        adapters = [np.array(weight) for weight in distiller._objective.bridge_weights]
        expected = compiled(
            keras_kd.Distiller(teacher, twin, [Hint("hidden", "hidden"), losses[1]], [2.0, 1.0]),
            hard_loss,
        )
        assert adapters[0].shape == (7, 6)
        for bridge, weights in zip(expected._objective.bridges, [adapters, []], strict=True):
            bridge.set_weights(weights)
        for each in (distiller, expected):
            history = train(each, examples, epochs=2)
            assert {"accuracy", "loss"} <= set(history.history)
        equal(arrays(new), arrays(twin))
        equal(arrays(first), before)
        assert int(distiller.optimizer.iterations) == 4
        np.testing.assert_allclose(
            distiller.predict(examples[0], verbose=0),
            new.predict(examples[0], verbose=0),
            rtol=1e-5,
        )

    def test_the_new_one_is_saved_and_the_old_one_forgotten(
        self, teacher, dense_model, examples, hard_loss, tmp_path
    ):
        first, new = dense_model(units=30, seed=3), dense_model(units=7, seed=4)
        distiller = compiled(
            keras_kd.Distiller(teacher, first), hard_loss, "adam", run_eagerly=True
        )
        train(distiller, examples)
        distiller.student = new
        train(distiller, examples)
        assert [id(weight) for weight in distiller.trainable_weights] == [
            id(weight) for weight in new.trainable_weights
        ]
        distiller.save(tmp_path / "all.keras")
        loaded = keras.models.load_model(tmp_path / "all.keras")
        equal(arrays(loaded.student), arrays(new))
        distiller.save_weights(tmp_path / "all.weights.h5")
        fresh = keras_kd.Distiller(teacher, dense_model(units=7, seed=9))
        fresh.load_weights(tmp_path / "all.weights.h5")
        equal(arrays(fresh.student), arrays(new))

    @FLAVOURS
    def test_one_of_the_other_keras_is_refused_and_with_student_takes_it(
        self, teacher, dense_model, examples, hard_loss, flavour
    ):
        other = "keras" if flavour == "tf_keras" else "tf_keras"
        first, new = of(flavour, dense_model()), of(other, dense_model(seed=5))
        distiller = compiled(keras_kd.Distiller(teacher, first), hard_loss, run_eagerly=True)
        with pytest.raises(ValueError, match=r"student for the distiller.*distiller\.with_student"):
            distiller.student = new
        assert distiller.student is first
        train(distiller.with_student(new), examples)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (lambda teacher, dense_model: None, "student=None"),
            (lambda teacher, dense_model: teacher, "as teacher and as student"),
            (lambda teacher, dense_model: dense_model(5), "from the teacher and"),
        ],
        ids=["None", "teacher", "classes"],
    )
    def test_what_does_not_fit_leaves_the_student_before(
        self, teacher, student, dense_model, examples, hard_loss, wrong, message
    ):
        distiller = compiled(keras_kd.Distiller(teacher, student), hard_loss, run_eagerly=True)
        train(distiller, examples)
        with pytest.raises(ValueError, match=message):
            distiller.student = wrong(teacher, dense_model)
        assert distiller.student is student
        before = arrays(student)
        train(distiller, examples)
        assert int(distiller.optimizer.iterations) == 4
        assert not np.allclose(before[0], arrays(student)[0])

    def test_an_optimizer_that_has_not_begun_stays(self, teacher, student, dense_model, hard_loss):
        class Own(keras.optimizers.SGD):
            def get_config(self):
                raise NotImplementedError("none")

        optimizer = Own(0.1)
        distiller = compiled(keras_kd.Distiller(teacher, student), hard_loss, optimizer)
        distiller.student = dense_model(seed=8)
        assert distiller.optimizer is optimizer

    def test_a_moving_average_begins_with_the_new_one_and_survives_a_refusal(
        self, dense_model, examples, hard_loss
    ):
        first, new = dense_model(seed=3), dense_model(seed=4)
        distiller = keras_kd.Distiller(MovingAverage(0.9), first)
        compiled(distiller, hard_loss, run_eagerly=True)
        train(distiller, examples)
        learned = arrays(distiller.teacher.learning_models[0])
        with pytest.raises(ValueError, match="cannot be copied"):
            distiller.student = Unbuilt()
        equal(arrays(distiller.teacher.learning_models[0]), learned)
        distiller.student = new
        equal(arrays(distiller.teacher.learning_models[0]), arrays(new))
        # The student's weights and the average's, and nothing of those before.
        assert len(distiller.weights) - len(distiller.optimizer.variables) <= 8 + 8


class Unbuilt(keras.Model):
    def call(self, inputs):
        return inputs


class TestLossesAndWeights:
    @pytest.mark.fast_rows(1)
    @FLAVOURS
    def test_weights_count_from_the_next_step_on(
        self, teacher, dense_model, examples, hard_loss, flavour
    ):
        distiller = compiled(
            keras_kd.Distiller(teacher, of(flavour, dense_model()), [SoftTargets(), LogitsMSE()]),
            hard_loss,
            keras.optimizers.SGD(0.0),
        )
        parts = distiller.evaluate(*examples, verbose=0, return_dict=True)
        soft, mse = (
            float(
                loss.compute_loss(
                    teacher(examples[0]),
                    keras.ops.convert_to_tensor(distiller.predict(examples[0], verbose=0)),
                )
            )
            for loss in distiller.distillation_losses
        )
        assert parts["distillation_loss"] == pytest.approx(soft + mse, rel=1e-5)
        distiller.distillation_loss_weights = [0.5, 2.0]
        distiller.student_loss_weight = 0.25
        logs = distiller.evaluate(*examples, verbose=0, return_dict=True)
        assert logs["distillation_loss"] == pytest.approx(0.5 * soft + 2 * mse, rel=1e-5)
        assert logs["total_loss"] == pytest.approx(
            0.25 * logs["student_loss"] + 0.75 * logs["distillation_loss"], rel=1e-5
        )
        distiller.distillation_loss_weights[0] = 3.0
        logs = distiller.evaluate(*examples, verbose=0, return_dict=True)
        assert logs["distillation_loss"] == pytest.approx(3 * soft + 2 * mse, rel=1e-5)
        distiller.distillation_losses = [LogitsMSE(), SoftTargets()]
        logs = distiller.evaluate(*examples, verbose=0, return_dict=True)
        assert logs["distillation_loss"] == pytest.approx(3 * mse + 2 * soft, rel=1e-5)
        distiller.distillation_losses[1] = LogitsMSE()
        logs = distiller.evaluate(*examples, verbose=0, return_dict=True)
        assert logs["distillation_loss"] == pytest.approx(5 * mse, rel=1e-5)

    @pytest.mark.fast_rows(1)
    @FLAVOURS
    def test_losses_with_adapters_train_them(
        self, teacher, dense_model, examples, hard_loss, flavour
    ):
        student = of(flavour, dense_model())
        distiller = compiled(keras_kd.Distiller(teacher, student), hard_loss)
        train(distiller, examples)
        distiller.distillation_losses = Hint("hidden", "hidden")
        [adapter] = distiller._objective.bridge_weights
        before = np.array(adapter)
        train(distiller, examples)
        assert not np.allclose(before, adapter)
        names = 1 if flavour == "tf_keras" else len(distiller.bridges)
        assert names == 1
        assert len(distiller.trainable_weights) == 5

    def test_what_is_wrong_changes_nothing(self, teacher, student, examples, hard_loss):
        distiller = compiled(keras_kd.Distiller(teacher, student), hard_loss, run_eagerly=True)
        with pytest.raises(ValueError, match="2 distillation_loss_weights for 1"):
            distiller.distillation_loss_weights = [1.0, 2.0]
        with pytest.raises(ValueError, match="student_loss_weight=2"):
            distiller.student_loss_weight = 2
        with pytest.raises(ValueError, match="1 distillation_loss_weights for 2"):
            distiller.distillation_losses = [SoftTargets(), LogitsMSE()]
        with pytest.raises(ValueError, match=r"layer name 'nonsense'"):
            distiller.distillation_losses = Hint("nonsense", "hidden")
        with pytest.raises(ValueError, match="as an argument of the constructor"):
            distiller.missing_label = -1
        assert distiller.distillation_loss_weights == [1.0]
        assert [type(loss) for loss in distiller.distillation_losses] == [SoftTargets]
        train(distiller, examples)

    def test_a_share_of_labels_needs_a_loss_on_them(self, teacher, student):
        distiller = keras_kd.Distiller(teacher, student, student_loss_weight=0)
        distiller.compile("sgd")
        with pytest.raises(ValueError, match=r"loss=None with student_loss_weight=0\.5"):
            distiller.student_loss_weight = 0.5
        assert distiller.student_loss_weight == 0


def test_inputs_can_be_replaced(dense_model, student, examples, hard_loss):
    x, y = examples
    teacher = dense_model(units=6, seed=1)
    distiller = compiled(keras_kd.Distiller(teacher, student), hard_loss)
    distiller.teacher_inputs = "other"
    assert distiller.teacher_inputs == "other"
    data = {"own": x, "other": 2 * x}
    logs = distiller.evaluate(data, y, verbose=0, return_dict=True)
    expected = SoftTargets().compute_loss(teacher(2 * x), student(x))
    assert logs["distillation_loss"] == pytest.approx(float(expected), rel=1e-5)
    distiller.student_inputs = "other"
    logs = distiller.evaluate(data, y, verbose=0, return_dict=True)
    expected = SoftTargets().compute_loss(teacher(2 * x), student(2 * x))
    assert logs["distillation_loss"] == pytest.approx(float(expected), rel=1e-5)
