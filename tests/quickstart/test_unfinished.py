import keras
import numpy as np
import pytest

from keras_kd.quickstart.unfinished import Unfinished


@pytest.fixture
def model():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])


def filled(model, value):
    model.set_weights([np.full_like(weight, value) for weight in model.get_weights()])


def test_a_model_that_was_trained_is_restored(tmp_path, model):
    first = Unfinished(tmp_path / "unfinished", {"seed": 1})
    assert not first.restore("teacher", model)
    filled(model, 3.0)
    first.keep("teacher", model)
    filled(model, 0.0)
    again = Unfinished(tmp_path / "unfinished", {"seed": 1})
    assert not again.restore("alone", model)
    assert again.restore("teacher", model)
    assert all((weight == 3.0).all() for weight in model.get_weights())


def test_what_other_settings_have_left_is_not_taken(tmp_path, model):
    Unfinished(tmp_path, {"seed": 1}).keep("teacher", model)
    other = Unfinished(tmp_path, {"seed": 2})
    assert not other.restore("teacher", model)
    other.keep("alone", model)
    assert not Unfinished(tmp_path, {"seed": 1}).restore("teacher", model)
    assert not Unfinished(tmp_path, {"seed": 2}).restore("teacher", model)


def test_what_cannot_be_read_is_an_error(tmp_path, model):
    Unfinished(tmp_path, {}).keep("teacher", model)
    (tmp_path / "teacher.npz").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"teacher\.npz', which cannot be read.*a quickstart has"):
        Unfinished(tmp_path, {}).restore("teacher", model)
    (tmp_path / "models.json").write_text("{")
    with pytest.raises(ValueError, match=r"models\.json', which cannot be read.*begin anew"):
        Unfinished(tmp_path, {})


def test_in_the_end_nothing_is_left(tmp_path, model):
    unfinished = Unfinished(tmp_path / "unfinished", {})
    unfinished.keep("teacher", model)
    unfinished.remove()
    assert not any(tmp_path.iterdir())
