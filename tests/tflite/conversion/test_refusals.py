import keras
import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite.conversion.forms import FORMS
from keras_kd.tflite.conversion.refusals import check_layers


def test_an_embedding_of_keras_3_needs_an_operator_that_tflm_lacks():
    words = keras.Sequential([keras.Input((5,), dtype="int32"), keras.layers.Embedding(20, 4)])
    check_layers(words, FORMS["int8"])
    with pytest.raises(ValueError, match=r"operator SELECT.*compression.to_tf_keras\(student\)"):
        check_layers(words, FORMS["int8"], {"SELECT"})


def test_fused_lstms_in_two_directions_compute_something_else_in_integers():
    import tf_keras

    of = tf_keras.layers
    fused, unrolled = (
        tf_keras.Sequential(
            [tf_keras.Input((5, 3)), of.Bidirectional(of.LSTM(4, unroll=unroll), name="both")]
        )
        for unroll in (False, True)
    )
    check_layers(fused, FORMS["float32"])
    check_layers(unrolled, FORMS["int8"])
    with pytest.raises(ValueError, match=r"layer 'both', LSTMs in two directions.*unroll=True"):
        check_layers(fused, FORMS["int8"])


def test_what_stays_in_real_numbers_is_refused_by_the_name_of_its_layer():
    x = keras.Input((6, 4))
    steps = keras.layers.Masking(name="skip")(x)
    student = keras.Model(x, keras.layers.GlobalAveragePooling1D()(steps))
    data = np.random.default_rng(0).normal(size=(16, 6, 4)).astype("float32")
    with pytest.raises(ValueError, match=r"real numbers and back .* in the layer 'skip'\. Exp"):
        tflite.convert(student, "int8", data)
