"""Files in the real ImageClassifier, and metadata beside those of MediaPipe's own schema.

MediaPipe and TF-MOT cannot be installed together (they need different versions of absl-py), so it
has an environment of its own: `make test-android` makes it, or KERAS_KD_MEDIAPIPE_PYTHON names its
interpreter.
"""

import dataclasses
import importlib.util
import json
import os
import subprocess
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_kd
from keras_kd import tflite
from keras_kd.tflite import android
from keras_kd.tflite.android import writing
from keras_kd.tflite.contents import metadata_schema as schema
from keras_kd.tflite.contents.archive import append_files

WORKER = Path(__file__).with_name("mediapipe_worker.py")
OWN = Path(__file__).parents[3] / ".venv-mediapipe" / "bin" / "python"
PYTHON = os.environ.get("KERAS_KD_MEDIAPIPE_PYTHON") or (str(OWN) if OWN.is_file() else None)
pytestmark = pytest.mark.skipif(PYTHON is None, reason="no MediaPipe: make test-android")

IMAGES = 150
QUANTIZATIONS = ["float32", "float16", "dynamic_int8", "int8", "int16x8"]
if importlib.util.find_spec("ai_edge_quantizer") is not None:
    QUANTIZATIONS.append("int4")
MEAN, STD = android.normalization(0, 1)
PLAIN = android.Metadata([f"digit {name}" for name in "0123456789"], mean=MEAN, std=STD)
CALIBRATION = android.ScoreCalibration(
    [(1.0, 2.0, -0.5), None, (0.5, 3.0, 0.25, 0.5), *[(1.0, 1.0, 0.0)] * 7], default_score=0.25
)


@pytest.fixture(scope="module")
def digits():
    return keras_kd.data.load_sample().first(3000, IMAGES)


@pytest.fixture(scope="module")
def student(digits):
    """A grey-scale student of logits, trained for seconds."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    student = keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile(keras.optimizers.Adam(0.005), loss)
    student.fit(digits.x_train, digits.y_train, epochs=2, verbose=0)
    return student


def _colored(images):
    return np.repeat(images, 3, axis=-1)


@pytest.fixture(scope="module")
def models(student, digits):
    """Files that MediaPipe runs, by name."""
    color = android.with_color_input(android.with_softmax(student))
    representative = _colored(digits.x_train[:200])
    with warnings.catch_warnings():
        # No phone is fast in int16x8.
        warnings.simplefilter("ignore", UserWarning)
        files = {name: tflite.convert(color, name, representative) for name in QUANTIZATIONS}
    described = {name: android.add_metadata(model, PLAIN) for name, model in files.items()}
    calibrated = dataclasses.replace(PLAIN, score_calibration=CALIBRATION)
    described["calibrated"] = android.add_metadata(files["float32"], calibrated)
    return described


@pytest.fixture(scope="module")
def others(student, digits):
    """Files that `add_metadata` refuses, with metadata all the same."""
    color = android.with_color_input(student)
    grey = android.with_softmax(student)
    scores = android.with_color_input(grey)
    representative = _colored(digits.x_train[:200])
    return {
        "logits": _forced(tflite.convert(color)),
        "grey": _forced(tflite.convert(grey)),
        "integers": _forced(tflite.convert(scores, "int8", representative, "microcontroller")),
        "nameless": _described(tflite.convert(scores)),
    }


def _described(model):
    """Without the file of labels that the metadata name."""
    written = writing.write_tables(writing._model_table(model, PLAIN), schema.FILE_IDENTIFIER)
    return model.flatbuffer.with_metadata(schema.ENTRY, written)


def _forced(model):
    return append_files(_described(model), writing._files(PLAIN))


@pytest.fixture(scope="module")
def results(models, others, digits, described, tmp_path_factory):
    """The directory in which MediaPipe has left what it found."""
    directory = tmp_path_factory.mktemp("mediapipe")
    for name, model in models.items():
        model.save(directory / f"{name}.tflite")
    for name, content in others.items():
        (directory / f"{name}.tflite").write_bytes(content)
    (directory / "metadata.bin").write_bytes(described.flatbuffer.metadata(schema.ENTRY))
    np.save(directory / "images.npy", np.round(_colored(digits.x_test) * 255).astype(np.uint8))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = subprocess.run(
        [PYTHON, WORKER, directory],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=environment,
    )
    assert process.returncode == 0, process.stderr
    return directory


def _result(results, name):
    return json.loads((results / f"{name}.json").read_text())


def _scores(results, name):
    result = _result(results, name)
    assert "error" not in result, result
    return np.array([[row[str(index)] for index in range(10)] for row in result["scores"]])


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_phone_says_what_litert_says(results, models, digits, quantization):
    expected = models[quantization].predict(_colored(digits.x_test))
    scores = _scores(results, quantization)
    assert scores.shape == (IMAGES, 10)
    np.testing.assert_array_equal(scores.argmax(axis=1), expected.argmax(axis=1))
    # 8 bits round what differs in the last digit of a float to the next step of 1/256.
    tolerance = 1 / 256 + 1e-6 if quantization == "int8" else 1e-4
    np.testing.assert_allclose(scores, expected, atol=tolerance)
    least = 0.6 if quantization == "int4" else 0.8
    assert (scores.argmax(axis=1) == digits.y_test).mean() > least


def test_labels_and_names_are_shown(results):
    result = _result(results, "int8")
    assert result["labels"] == {str(index): f"digit {index}" for index in range(10)}
    assert result["output"] == "scores"


def test_score_calibration_takes_effect(results, models, digits):
    x = models["float32"].predict(_colored(digits.x_test))
    scores = _scores(results, "calibrated")

    def sigmoid(values):
        return 1 / (1 + np.exp(-values))

    np.testing.assert_allclose(scores[:, 0], sigmoid(2 * x[:, 0] - 0.5), atol=1e-4)
    np.testing.assert_array_equal(scores[:, 1], 0.25)
    sure = np.where(x[:, 2] > 0.5, 0.5 * sigmoid(3 * x[:, 2] + 0.25), 0.25)
    assert len(np.unique(sure.round(6))) > 2
    np.testing.assert_allclose(scores[:, 2], sure, atol=1e-4)
    np.testing.assert_allclose(scores[:, 3:], sigmoid(x[:, 3:]), atol=1e-4)


def test_what_is_refused_here_is_refused_there(results):
    for name in ("grey", "integers", "nameless"):
        assert "error" in _result(results, name), name
    logits = _scores(results, "logits")
    assert logits.max() > 1, "MediaPipe makes probabilities of logits: no need to refuse them"


def test_the_bytes_follow_the_schema(results, metadata):
    """As MediaPipe's own classes unpack them: every field, and nothing else."""
    assert _result(results, "metadata") == {
        "name": metadata.name,
        "description": metadata.description,
        "version": metadata.version,
        "author": metadata.author,
        "license": metadata.license,
        "minParserVersion": "1.0.0",
        "subgraphMetadata": [
            {
                "inputTensorMetadata": [
                    {
                        "name": "image",
                        "description": "The image to classify.",
                        "content": {
                            "contentPropertiesType": 2,
                            "contentProperties": {
                                "colorSpace": 1,
                                "defaultSize": {"width": 8, "height": 8},
                            },
                        },
                        "processUnits": [
                            {
                                "optionsType": 1,
                                "options": {"mean": [*metadata.mean], "std": [*metadata.std]},
                            }
                        ],
                    }
                ],
                "outputTensorMetadata": [
                    {
                        "name": "scores",
                        "description": "The score of each class.",
                        "content": {"contentPropertiesType": 1, "contentProperties": {}},
                        "processUnits": [
                            {
                                "optionsType": 2,
                                "options": {"scoreTransformation": 2, "defaultScore": 0.0625},
                            }
                        ],
                        "associatedFiles": [
                            {
                                "name": "labels.txt",
                                "description": "The name of each class.",
                                "type": 2,
                            },
                            {
                                "name": "score_calibration.csv",
                                "description": "Scale, slope, offset and least score of each "
                                "class.",
                                "type": 4,
                            },
                        ],
                    }
                ],
            }
        ],
    }


def test_what_mediapipes_classes_write_is_read(results, color_model):
    written = (results / "independent.bin").read_bytes()
    content = color_model.flatbuffer.with_metadata(schema.ENTRY, written)
    model = tflite.TFLiteModel(append_files(content, {"names.txt": b"a\nb\nc\n"}))
    assert android.read_metadata(model) == android.Metadata(
        ["a", "b", "c"],
        name="Independent",
        description="Made elsewhere.",
        version="2",
        author="Somebody",
        license="MIT",
        mean=(1.0, 2.0, 3.0),
        std=(4.0, 5.0, 6.0),
    )
