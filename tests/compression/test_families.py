"""What holds for every family of compression, by the columns of its row."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_kd import compression
from keras_kd.compression.families import BY_NAME, FAMILIES, family_of, wrapper_modules
from keras_kd.compression.steps.result import Stage

X = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
SETTINGS = {"factorize": {"rank": 1}, "quantize_aware": {"representative_data": X}}


def student():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(8, activation="relu", name="hidden"),
            layers.Dense(4, name="logits"),
        ]
    )


@pytest.fixture(scope="module")
def compressed():
    """The result of each family, made when first asked for."""
    made = {}

    def of(name):
        if name not in made:
            made[name] = BY_NAME[name].function(student(), **SETTINGS.get(name, {}))
        return made[name]

    return of


each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@each_family
def test_its_function_is_public(family):
    assert getattr(compression, family.name) is family.function
    assert family.name in compression.__all__


@each_family
def test_its_layers_are_recognized(family, compressed):
    result = compressed(family.name)
    found = {family_of(layer) for layer in result.layers} - {None}
    assert found == ({family} if family.state else set())
    assert bool(family.state) == bool(family.marks) == bool(family.wrapper)
    # Only a plain model is one of Keras 3.
    assert isinstance(result, keras.Model) == (family.state is None)


@each_family
def test_its_result_is_stripped_and_loaded(family, compressed, tmp_path):
    result = compressed(family.name)
    plain = compression.strip(result)
    assert isinstance(plain, keras.Model)
    assert {family_of(layer) for layer in plain.layers} == {None}
    if family.state is None:
        return
    result.save(tmp_path / "student.keras")
    loaded = compression.load(tmp_path / "student.keras")
    np.testing.assert_array_equal(loaded(X, training=False), result(X, training=False))
    assert hasattr(loaded, "training_callbacks") == hasattr(result, "training_callbacks")
    assert hasattr(loaded, "training_callbacks") == (family.prepare_loaded is not None)


@each_family
def test_it_accepts_the_states_in_its_row_and_no_others(family, compressed):
    states = {other.name: other.state for other in FAMILIES if other.state is not None}
    for name, state in states.items():
        call = family.function
        if state in family.takes:
            assert call(compressed(name), **SETTINGS.get(family.name, {}))
            continue
        with pytest.raises(ValueError, match=rf"{state} already \(layer") as error:
            call(compressed(name), **SETTINGS.get(family.name, {}))
        assert family.fix in str(error.value)


@each_family
def test_it_changes_weights_at_once_unless_it_needs_training(family, compressed):
    before = np.asarray(student()(X, training=False))
    after = np.asarray(compression.strip(compressed(family.name))(X, training=False))
    if family.needs_training:
        np.testing.assert_array_equal(after, before)


@each_family
def test_the_columns_name_what_there_is(family):
    assert set(family.undoes) <= set(BY_NAME)
    assert family.result is None or family.result in Stage.__dataclass_fields__
    assert set(family.takes) <= {other.state for other in FAMILIES}


def test_wrapper_modules_dismantle_only_their_own_layers():
    plain = layers.Dense(2)
    modules = wrapper_modules()
    assert len(modules) == len([family for family in FAMILIES if family.wrapper])
    assert [module.dismantle(plain) for module in modules] == [None] * len(modules)
