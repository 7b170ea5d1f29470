import numpy as np

from keras_kd.tflite.tensors import TensorInfo, random_stored

STORED = TensorInfo("stored", (1, 4), np.dtype("int8"), scale=0.5, zero_point=-3)


def test_quantize_rounds_and_clips():
    stored = STORED.quantize(np.array([[0.0, 0.3, -1.0, 1000.0]], np.float32))
    assert stored.dtype == np.int8
    np.testing.assert_array_equal(stored, [[-3, -2, -5, 127]])


def test_dequantize_is_its_inverse_on_what_can_be_stored():
    every = np.arange(-128, 128).astype(np.int8).reshape(-1, 4)
    real = STORED.dequantize(every)
    assert real.dtype == np.float32
    np.testing.assert_array_equal(STORED.quantize(real), every)


def test_what_is_not_quantized_stays_as_it_is():
    for dtype in ("float32", "int32"):
        tensor = TensorInfo("x", (1, 4), np.dtype(dtype))
        values = np.arange(4).reshape(1, 4).astype(dtype)
        assert tensor.dequantize(tensor.quantize(values)) is values


def test_random_values_fit_what_stores_them():
    stored = random_stored(STORED, 500)
    assert (stored.dtype, stored.min(), stored.max()) == (np.int8, -128, 127)
    words = random_stored(TensorInfo("words", (1, 4), np.dtype("int32")), 5)
    assert not words.any()
    real = random_stored(TensorInfo("x", (1, 4), np.dtype("float32")), 500)
    assert real.dtype == np.float32
    assert 0 <= real.min() < real.max() < 1
    np.testing.assert_array_equal(random_stored(STORED, 500), stored)
