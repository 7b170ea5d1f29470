import inspect
import os
import subprocess
import sys

from keras_kd import tflite


def test_every_public_name_exists_and_has_a_docstring():
    for name in tflite.__all__:
        assert inspect.getdoc(getattr(tflite, name)), name


def test_importing_loads_no_runtime():
    heavy = {"ai_edge_litert", "tflite_micro", "tf_keras", "tensorflow_model_optimization"}
    code = f"import sys, keras_kd.tflite; print(sorted({heavy} & set(sys.modules)))"
    # TF-MOT sets it in the process that imports it, and TensorFlow then loads tf_keras by itself.
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert process.stdout.strip() == "[]", process.stderr
