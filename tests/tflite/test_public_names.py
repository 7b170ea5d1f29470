import inspect
import subprocess
import sys

from keras_kd import tflite


def test_every_public_name_exists_and_has_a_docstring():
    for name in tflite.__all__:
        assert inspect.getdoc(getattr(tflite, name)), name


def test_importing_loads_no_runtime():
    heavy = {"ai_edge_litert", "tflite_micro", "tf_keras", "tensorflow_model_optimization"}
    code = f"import sys, keras_kd.tflite; print(sorted({heavy} & set(sys.modules)))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout.strip() == "[]", process.stderr
