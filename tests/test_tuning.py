import keras
import numpy as np
import pytest

import keras_kd
from keras_kd.tuning import Space, distiller_builder

from _models import labelled

keras_tuner = pytest.importorskip("keras_tuner")


def classifier(units=4, seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


@pytest.fixture(scope="module")
def teacher():
    return classifier(8)


@pytest.fixture(scope="module")
def data():
    return labelled(32, (6,))


def test_without_a_search_it_is_a_distiller_with_its_defaults(teacher):
    built = distiller_builder(teacher, lambda hp: classifier())(keras_tuner.HyperParameters())
    default = keras_kd.Distiller(teacher, classifier())
    (loss,), (default_loss,) = built.distillation_losses, default.distillation_losses
    assert loss.get_config() == default_loss.get_config()
    assert built.student_loss_weight == default.student_loss_weight
    assert float(built.optimizer.learning_rate) == pytest.approx(
        float(keras.optimizers.Adam().learning_rate)
    )


def test_chosen_values_reach_the_distiller(teacher):
    hyperparameters = keras_tuner.HyperParameters()
    chosen = {
        "distillation_loss": "dist",
        "temperature": 7.0,
        "student_loss_weight": 0.25,
        "learning_rate": 0.003,
        "units": 5,
    }
    for name, value in chosen.items():
        hyperparameters.Fixed(name, value)
    build = distiller_builder(teacher, lambda hp: classifier(hp.Int("units", 2, 9)))
    built = build(hyperparameters)
    (loss,) = built.distillation_losses
    assert isinstance(loss, keras_kd.losses.DIST)
    assert loss.temperature == 7.0
    assert built.student_loss_weight == 0.25
    assert float(built.optimizer.learning_rate) == pytest.approx(0.003)
    assert built.student.layers[0].units == 5


def test_a_space_bounds_what_is_tried_and_the_defaults_too(teacher):
    space = Space(
        temperature=(10.0, 12.0),
        student_loss_weight=(0.1, 0.1),
        losses={"soft": keras_kd.losses.SoftTargets},
    )
    hyperparameters = keras_tuner.HyperParameters()
    built = distiller_builder(teacher, lambda hp: classifier(), space=space)(hyperparameters)
    assert built.distillation_losses[0].temperature == 10.0
    assert built.student_loss_weight == 0.1
    (temperature,) = (each for each in hyperparameters.space if each.name == "temperature")
    assert (temperature.min_value, temperature.max_value) == (10.0, 12.0)
    assert temperature.sampling == "log"


@pytest.mark.slow
def test_keras_tuner_searches_trains_and_gives_the_best_back(teacher, data, tmp_path):
    x, y = data
    stored = keras_kd.teachers.StoredTeacher.create(teacher, (x, y), tmp_path / "teacher.store")
    tuner = keras_tuner.RandomSearch(
        distiller_builder(stored, lambda hp: classifier(hp.Int("units", 2, 4))),
        "val_accuracy",
        max_trials=3,
        seed=1,
        directory=tmp_path,
        project_name="search",
    )
    before = teacher.get_weights()
    tuner.search(stored.join((x, y), 16), validation_data=(x, y), epochs=1, verbose=0)
    trials = list(tuner.oracle.trials.values())
    assert len({str(trial.hyperparameters.values) for trial in trials}) == 3
    best = tuner.get_best_models()[0]
    accuracy = best.evaluate(x, y, verbose=0, return_dict=True)["accuracy"]
    assert accuracy == pytest.approx(max(trial.score for trial in trials))
    for ours, theirs in zip(teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_model_in_place_of_a_function_is_refused(teacher):
    with pytest.raises(TypeError, match=r"student of type Sequential.*new student.*lambda hp"):
        distiller_builder(teacher, classifier())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temperature": 4.0}, TypeError, r"temperature=4\.0\. Expected two numbers"),
        ({"temperature": (0.0, 2.0)}, ValueError, r"temperature=0\.0.*above 0"),
        ({"temperature": (5.0, 2.0)}, ValueError, "the lowest number first"),
        ({"student_loss_weight": (0.0, 1.5)}, ValueError, r"student_loss_weight=1\.5.*at most 1"),
        ({"learning_rate": ("a", 1.0)}, TypeError, "learning_rate='a'"),
        ({"losses": {}}, ValueError, r"losses=\{\}.*SoftTargets"),
        ({"losses": ["soft_targets"]}, TypeError, "make a loss from a temperature"),
    ],
)
def test_spaces_that_cannot_be_searched(options, error, message):
    with pytest.raises(error, match=message):
        Space(**options)
