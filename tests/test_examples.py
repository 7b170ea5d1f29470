import numpy as np
import pytest

from keras_kd._examples import examples_by_name
from keras_kd.tflite.tensors import TensorInfo

REAL = TensorInfo("features", (1, 3), np.dtype("float32"))
STORED = TensorInfo("stored", (1, 3), np.dtype("int8"), scale=0.5, zero_point=-3)
WORDS = TensorInfo("words", (1, 3), np.dtype("int32"))


def test_real_numbers_become_float32_also_where_they_are_stored_as_integers():
    for tensor in (REAL, STORED):
        (array,) = examples_by_name([[1.0, 2.0, 3.0]], [tensor]).values()
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, [[1, 2, 3]])


def test_integers_are_cast_to_the_type_of_the_input():
    assert examples_by_name(np.ones((2, 3), "int64"), [WORDS])["words"].dtype == np.int32


@pytest.mark.parametrize(
    ("data", "tensors", "message"),
    [
        (np.ones((2, 3)), [WORDS], "type float64 for the input 'words'.*astype\\('int32'\\)"),
        (np.ones((2, 3), "uint8"), [REAL], "type uint8.*real numbers scaled as"),
        (np.ones((2, 3), "uint8"), [STORED], "type uint8.*real numbers scaled as"),
        (np.full((2, 3), np.inf), [REAL], "NaN or infinite"),
        (1.0, [REAL], r"shape \(\).*\(examples, 3\)"),
        ([[1.0, 2.0], [3.0]], [REAL], "examples of several shapes"),
        (
            {"features": np.ones((2, 3)), "words": np.ones((4, 3), int)},
            [REAL, WORDS],
            r"numbers of examples: \{'features': 2, 'words': 4\}",
        ),
    ],
)
def test_data_that_do_not_fit(data, tensors, message):
    with pytest.raises(ValueError, match=message):
        examples_by_name(data, tensors)
