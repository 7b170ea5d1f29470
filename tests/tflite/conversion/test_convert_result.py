import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kd import tflite
from keras_kd.tflite.conversion.convert import check_result
from keras_kd.tflite.conversion.forms import FORMS, Options
from keras_kd.tflite.tensors import TensorInfo

INT8 = Options(FORMS["int8"])
FLOATS = TensorInfo("x", (1, 4), np.dtype("float32"))


class Counter(tf.Module):
    def __init__(self):
        super().__init__()
        self.total = tf.Variable(tf.zeros((1, 4)))

    @tf.function(input_signature=[tf.TensorSpec((1, 4), name="x")])
    def __call__(self, x):
        return {"y": self.total.assign_add(x)}


class Flex(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((1, 4), name="x")])
    def __call__(self, x):
        return {"y": tf.linalg.inv(tf.reshape(x, (1, 2, 2)))}


def _converted(module, path, **options):
    tf.saved_model.save(module, path, signatures=module.__call__)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(path))
    for name, value in options.items():
        setattr(converter, name, value)
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS,
        tf.lite.OpsSet.SELECT_TF_OPS,
    ]
    return converter.convert()


def test_variable_operators_are_named(tmp_path):
    content = _converted(Counter(), tmp_path, experimental_enable_resource_variables=True)
    model = tflite.TFLiteModel(content)
    with pytest.raises(ValueError, match=r"operators .*VAR_HANDLE.*without variables"):
        check_result(model, [FLOATS], Options(FORMS["float32"]), False)


def test_flex_operators_do_not_even_load(tmp_path):
    content = _converted(Flex(), tmp_path)
    with pytest.raises(ValueError, match=r"LiteRT cannot load .*Flex delegate"):
        tflite.TFLiteModel(content)


def test_a_float_file_is_no_int8_file(float_model):
    with pytest.raises(ValueError, match=r"CONV_2D, .* compute in floating point.*integers only"):
        check_result(float_model, float_model.inputs, INT8, True)


def test_layers_that_stay_in_float():
    one_hot = keras.layers.CategoryEncoding(6, output_mode="one_hot")
    categories = keras.Sequential(
        [keras.Input((1,), dtype="int32"), one_hot, keras.layers.Dense(3)]
    )
    with pytest.raises(ValueError, match=r"CAST compute in floating point.*replace the layers"):
        tflite.convert(categories, "int8", np.arange(6, dtype="int32")[:, None])


def test_types_of_inputs_and_outputs(student, images, micro_model):
    phone = tflite.convert(student, "int8", images)
    with pytest.raises(ValueError, match=r"tensor 'image' is float32.*int8 with a scale"):
        check_result(phone, phone.inputs, Options(FORMS["int8"], "int8", "int8"), True)
    with pytest.raises(ValueError, match=r"tensor 'image' is int8 with the scale 0.00.*float32"):
        check_result(micro_model, phone.inputs, INT8, True)


def test_names_and_shapes_of_inputs(float_model):
    with pytest.raises(ValueError, match=r"input image float32\[1, 8, 8, 1\].*x float32\[1, 4\]"):
        check_result(float_model, [FLOATS], Options(FORMS["float32"]), False)


def test_a_file_that_keeps_something_between_calls_is_refused(fused_lstm):
    with pytest.raises(ValueError, match=r"with state: 2 tensors kept.*the same outputs in every"):
        check_result(fused_lstm, fused_lstm.inputs, Options(FORMS["float32"]), False)
