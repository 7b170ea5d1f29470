import keras
import pytest
from keras import layers

from keras_kd.compression.bridge.graph import read
from keras_kd.compression.selection import select


def graph():
    return read(
        keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Conv2D(2, 3, name="first"),
                layers.Conv2D(2, 3, name="second"),
                layers.Flatten(name="flat"),
                layers.Dense(2, name="logits"),
            ]
        )
    )


def has_kernel(layer):
    return hasattr(layer, "kernel")


@pytest.mark.parametrize(
    ("chosen", "skip", "expected"),
    [
        (None, None, ["first", "second", "logits"]),
        ("second", None, ["second"]),
        (["logits", "first"], None, ["first", "logits"]),
        (layers.Conv2D, None, ["first", "second"]),
        ([layers.Conv2D, "logits"], ["first"], ["second", "logits"]),
        (lambda layer: layer.name != "first", None, ["second", "logits"]),
        (None, lambda layer: isinstance(layer, layers.Conv2D), ["logits"]),
        (None, layers.Layer, None),
    ],
)
def test_layers_are_chosen_by_name_type_or_function(chosen, skip, expected):
    if expected is None:
        with pytest.raises(ValueError, match=r"no chosen layer can be pruned.*at least one of"):
            select(graph(), chosen, skip, has_kernel, "pruned")
    else:
        assert select(graph(), chosen, skip, has_kernel, "pruned") == expected


@pytest.mark.parametrize(
    ("chosen", "error", "message"),
    [
        ("frst", ValueError, "'frst' is no layer of the student.*write 'first'"),
        ("flat", ValueError, r"\['flat'\] cannot be pruned.*leave the others out"),
        (3, TypeError, "layers=3.*names or types"),
        ([3], TypeError, r"layers=\[3\].*names or types"),
    ],
)
def test_a_selection_that_cannot_be(chosen, error, message):
    with pytest.raises(error, match=message):
        select(graph(), chosen, None, has_kernel, "pruned")
