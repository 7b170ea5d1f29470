"""What a search keeps on disk."""

import json
import time

import keras
import numpy as np
import pytest
from _disk import without_permission
from keras import layers

import keras_kd
from keras_kd.search.state import State, described, digest_of, family_digest


@pytest.fixture
def student():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])


def test_what_was_saved_is_read_again(tmp_path, student):
    state = State(tmp_path / "run", {"trials": 3})
    state.candidates["one"] = {"rungs": [{"value": 0.5}]}
    state.save_weights("one", "rung0", student)
    state.save()
    seconds = json.loads((tmp_path / "run" / "search.json").read_text())["seconds"]
    again = State(tmp_path / "run", {"trials": 3})
    assert again.candidates == state.candidates
    assert again.seconds >= seconds > 0
    other = keras.models.clone_model(student)
    again.load_weights("one", "rung0", other)
    np.testing.assert_array_equal(other.get_weights()[0], student.get_weights()[0])


def test_another_search_is_refused(tmp_path):
    State(tmp_path, {"trials": 3, "data": "a"}).save()
    with pytest.raises(ValueError, match=r"with a search of other data.*another directory"):
        State(tmp_path, {"trials": 3, "data": "b"})


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1}', '{"version": 1, "x": NaN}'])
def test_a_damaged_manifest_is_refused(tmp_path, content):
    (tmp_path / "search.json").write_text(content)
    with pytest.raises(ValueError, match=r"which cannot be read.*begin anew"):
        State(tmp_path, {})


def test_damaged_weights_are_refused(tmp_path, student):
    state = State(tmp_path, {})
    state.save_weights("one", "rung0", student)
    [file] = (tmp_path / "students").iterdir()
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(ValueError, match="which cannot be read"):
        state.load_weights("one", "rung0", student)


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "search.json").symlink_to(tmp_path / "other.json")
    with pytest.raises(ValueError, match="symbolic link"):
        State(tmp_path / "run", {})


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(NotADirectoryError, match="which is a file"):
        State(tmp_path / "run", {})


def test_digests_tell_data_apart():
    a = np.arange(6.0)
    assert digest_of([a, {"x": a}]) == digest_of([a.copy(), {"x": a.copy()}])
    assert digest_of(a) != digest_of(a + 1)
    assert digest_of(a) != digest_of(a.reshape(2, 3))
    assert digest_of(a) != digest_of(a.astype("float32"))


def test_a_new_search_says_at_once_that_nothing_can_be_written(tmp_path):
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed").chmod(0o555)
    (tmp_path / "file").touch()
    with (
        without_permission(tmp_path / "file"),
        pytest.raises(PermissionError, match="where nothing can be written"),
    ):
        State("closed", {})


def test_time_counts_from_the_beginning_of_the_call(tmp_path):
    state = State(tmp_path, {}, time.monotonic() - 50)
    assert 50 <= state.seconds < 60


def recipe_of(**options):
    recipe = {"epochs": 1, "loss": None, "distillation_losses": None, **options}
    return {name: described(value) for name, value in recipe.items()}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (keras_kd.losses.SoftTargets(2.0), keras_kd.losses.SoftTargets(4.0)),
        (["soft_targets", "dist"], ["soft_targets", "logits_mse"]),
        ([keras_kd.losses.SoftTargets(2.0)], [keras_kd.losses.SoftTargets(4.0)]),
        ("dist", "soft_targets"),
    ],
)
def test_another_loss_is_another_search(tmp_path, one, other):
    State(tmp_path, recipe_of(distillation_losses=one)).save()
    State(tmp_path, recipe_of(distillation_losses=one))
    with pytest.raises(ValueError, match="a search of other distillation_losses"):
        State(tmp_path, recipe_of(distillation_losses=other))


def test_losses_are_the_same_in_another_process():
    class Own(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return y_pred

    # Keras gives the second one another name.
    assert described(Own()) == described(Own())
    assert described(Own()) != described(Own(reduction="sum"))


def test_another_family_is_another_search():
    def first():
        def build(hp):
            return keras.Sequential([layers.Dense(hp.Int("units", 1, 2))])

        return build

    def second():
        def build(hp):
            return keras.Sequential([layers.Dense(hp.Int("units", 1, 2), "relu")])

        return build

    assert family_digest(first()) == family_digest(first()) != family_digest(second())
    assert family_digest(None) is None
    assert isinstance(family_digest(len), str)
