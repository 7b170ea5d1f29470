"""What the converter makes of a student, read from the file."""

from keras_kd import tflite


def test_the_range_of_the_input_is_that_of_the_data(student, images):
    model = tflite.convert(student, "int8", images * 2 - 1, "microcontroller")
    (image,) = model.inputs
    low, high = (image.scale * (stored - image.zero_point) for stored in (-128, 127))
    assert abs(low + 1) < 0.02
    assert abs(high - 1) < 0.02
