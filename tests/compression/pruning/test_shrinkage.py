import keras
import pytest
from keras import layers

from keras_kd.compression import prune, remove_filters, shrinkage


def cnn():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, strides=2, padding="same", name="conv"),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.SeparableConv2D(6, 3, padding="same", name="separable"),
            layers.Conv2DTranspose(4, 2, strides=2, name="transposed"),
            layers.Flatten(),
            layers.Dense(2, name="logits"),
        ]
    )


def test_what_is_counted():
    student = cnn()
    measured = shrinkage(student, remove_filters(student, 0.5))
    assert measured.layers == {
        "conv": (8, 4),
        "separable": (6, 3),
        "transposed": (4, 2),
        "logits": (2, 2),
    }
    assert measured.parameters_before == student.count_params()

    def multiplications(conv, separable, transposed):
        return (
            # Strides leave 4 x 4 positions.
            16 * 9 * 3 * conv
            + 16 * 9 * conv
            + 16 * (9 * conv + conv * separable)
            # Each input position is multiplied with a 2 x 2 kernel.
            + 16 * 4 * separable * transposed
            + 64 * transposed * 2
        )

    assert measured.multiplications_before == multiplications(8, 6, 4)
    assert measured.multiplications_after == multiplications(4, 3, 2)
    assert measured.parameters_after == (
        (27 + 1) * 4 + 4 * 4 + (9 + 1) * 4 + 9 * 4 + 4 * 3 + 3 + (4 * 3 + 1) * 2 + (128 + 1) * 2
    )


def test_it_reads_as_a_table():
    student = keras.Sequential(
        [keras.Input((10,)), layers.Dense(1000, name="hidden"), layers.Dense(2, name="logits")]
    )
    assert str(shrinkage(student, remove_filters(student, 0.5))).splitlines() == [
        "filters or units of  before  after  left",
        "hidden                1,000    500   50%",
        "logits                    2      2  100%",
        "all parameters       13,002  6,502   50%",
        "multiplications      12,000  6,000   50%",
    ]


def test_a_map_of_unknown_size_has_no_number_of_multiplications():
    student = keras.Sequential(
        [
            keras.Input((None, None, 1)),
            layers.Conv2D(4, 3),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ]
    )
    measured = shrinkage(student, remove_filters(student, 0.5))
    assert measured.multiplications_before is None
    assert "multiplications" not in str(measured)


def test_a_pruned_student_counts_as_the_plain_one():
    student = cnn()
    pruned = prune(student, 0.5)
    assert shrinkage(pruned, student).parameters_before == student.count_params()


def test_models_that_do_not_belong_together_are_refused():
    other = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="other")])
    with pytest.raises(ValueError, match=r"only one has the layers .*'other'.*from before"):
        shrinkage(cnn(), other)
