import numpy as np

from keras_kd.tflite import TFLiteModel
from keras_kd.tflite.contents.smallest import smallest_model


def test_it_runs_in_all_kernels():
    model = TFLiteModel(smallest_model())
    assert model.size < 400
    for kernels in ("xnnpack", "builtin"):
        result = model.predict(np.array([3.0, -2.0], np.float32), kernels)
        np.testing.assert_array_equal(result, [3.0, 0.0])
