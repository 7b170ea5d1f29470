"""Members of a user's family of students."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_kd.search.family import OfUser, samples


@pytest.fixture
def build():
    pytest.importorskip("keras_tuner")

    def build_student(hp):
        model = [keras.Input((5,))]
        for number in range(hp.Int("layers", 1, 2)):
            model.append(layers.Dense(hp.Choice(f"units_{number}", [2, 4, 8])))
        return keras.Sequential([*model, layers.Dense(3)])

    return build_student


def test_members_of_a_family_are_drawn_once_each(build):
    found = list(samples(build, seed=0, most=6, most_tries=60))
    names = [member.name for member, reason in found]
    assert len(set(names)) == len(names) == 6
    assert all(reason is None for _, reason in found)
    again = [member.name for member, _ in samples(build, seed=0, most=6, most_tries=60)]
    assert names == again


def test_a_member_is_built_again_from_its_values(build):
    member = OfUser(build, {"layers": 2, "units_0": 4, "units_1": 8}, 5)
    first, second = member.build(), member.build()
    assert [layer.units for layer in first.layers] == [4, 8, 3]
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_code_of_a_member_makes_it_again(build):
    member = OfUser(build, {"layers": 1, "units_0": 8}, 5)
    names = {"build_student": build, "keras": keras}
    exec(member.code(), names)
    for one, other in zip(
        member.build().get_weights(), names["student"].get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    # A lambda has no name that code could call.
    assert "student = build_student(" in OfUser(lambda hp: build(hp), member.values, 5).code()


def test_what_is_no_model_is_refused():
    pytest.importorskip("keras_tuner")
    with pytest.raises(TypeError, match=r"student of type int.*keras\.Model"):
        next(samples(lambda hp: 3, 0, 1, 1))


def test_a_member_that_was_drawn_before_is_not_built_again():
    pytest.importorskip("keras_tuner")
    built = []

    def build_student(hp):
        units = hp.Choice("units", [2, 4])
        built.append((units, hp.Choice("layers", [1, 2]) if units == 4 else 1))
        hidden = [layers.Dense(units) for _ in range(built[-1][1])]
        return keras.Sequential([keras.Input((5,)), *hidden])

    found = [member.settings() for member, _ in samples(build_student, 0, 9, 60)]
    assert sorted(map(len, found)) == [1, 2, 2]
    # The first one shows what parameters there are.
    assert len(built) == 1 + len(found)
    assert len(set(built[1:])) == len(found)
