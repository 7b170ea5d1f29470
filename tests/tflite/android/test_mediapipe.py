"""Files in the real tasks of MediaPipe, and metadata beside those of its own schema.

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

from _models import cross_entropy

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
    loss = cross_entropy()
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
    ends = {"input_type": "uint8", "output_type": "uint8", "input_range": (0, 1)}
    files["uint8"] = tflite.convert(color, "int8", representative, **ends)
    described["uint8"] = android.add_metadata(files["uint8"], PLAIN)
    described["by channel"] = _by_channel(color, representative)
    return described


# Of pixels of 0..255, beside which the student computes what it did of 0..1.
CHANNEL_MEAN, CHANNEL_STD = (3.0, 0.0, -6.0), (250.0, 255.0, 260.0)


def _by_channel(student, representative):
    """A student of images that are normalized by channel, in integers from end to end."""
    model = android.with_normalization(student, CHANNEL_MEAN, CHANNEL_STD)
    ends = {"input_type": "uint8", "output_type": "uint8"}
    files = tflite.convert(model, "int8", np.round(representative * 255), **ends)
    return android.add_metadata(files, android.Metadata(PLAIN.class_names))


@pytest.fixture(scope="module")
def heard():
    """Files that the AudioClassifier runs, by name; class names occur twice in them."""
    keras.utils.set_random_seed(0)
    student = keras.Sequential(
        [
            keras.Input((400,), name="recording"),
            keras.layers.Reshape((400, 1)),
            keras.layers.Conv1D(8, 16, strides=8, activation="relu"),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(3, activation="softmax", name="scores"),
        ]
    )
    metadata = android.Metadata(["crane", "heron", "crane"], sample_rate=16000)
    with pytest.warns(UserWarning, match="'crane' of the classes 0 and 2"):
        return {
            f"audio_{form}": android.add_metadata(tflite.convert(student, form, data), metadata)
            for form, data in (("float32", None), ("int8", RECORDINGS))
        }


RECORDINGS = np.random.default_rng(0).uniform(-1, 1, (20, 400)).astype("float32")


@pytest.fixture(scope="module")
def segmented(digits):
    """Files that the ImageSegmenter runs, by name."""
    keras.utils.set_random_seed(0)
    student = keras.Sequential(
        [
            keras.Input((28, 28, 3), name="image"),
            keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(4, 1, name="segments"),
        ]
    )
    student = android.with_softmax(student)
    metadata = android.Metadata(["sky", "road", "sea", "car"], mean=MEAN, std=STD)
    data = _colored(digits.x_train[:50])
    ends = {"input_type": "uint8", "output_type": "uint8", "input_range": (0, 1)}
    files = {
        "segments_float32": tflite.convert(student),
        "segments_uint8": tflite.convert(student, "int8", data, **ends),
    }
    return {name: android.add_metadata(model, metadata) for name, model in files.items()}


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
        "std by channel": _forced(
            tflite.convert(scores), dataclasses.replace(PLAIN, std=(255.0, 254.0, 255.0))
        ),
        "no image": _forced(tflite.convert(scores), PLAIN, "numbers"),
    }


def _described(model, metadata=PLAIN, kind="image"):
    """Without the file of labels that the metadata name."""
    table = writing._model_table(model, metadata, kind)
    written = writing.write_tables(table, schema.FILE_IDENTIFIER)
    return model.flatbuffer.with_metadata(schema.ENTRY, written)


def _forced(model, metadata=PLAIN, kind="image"):
    return append_files(_described(model, metadata, kind), writing._files(metadata))


@pytest.fixture(scope="module")
def results(models, others, heard, segmented, digits, described, tmp_path_factory):
    """The directory in which MediaPipe has left what it found."""
    directory = tmp_path_factory.mktemp("mediapipe")
    for name, model in {**models, **heard, **segmented}.items():
        model.save(directory / f"{name}.tflite")
    for name, content in others.items():
        (directory / f"{name}.tflite").write_bytes(content)
    (directory / "metadata.bin").write_bytes(described.flatbuffer.metadata(schema.ENTRY))
    np.save(directory / "images.npy", np.round(_colored(digits.x_test) * 255).astype(np.uint8))
    np.save(directory / "recordings.npy", RECORDINGS)
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


@pytest.mark.parametrize("name", ["uint8", "by channel"])
def test_pixels_go_into_files_of_bytes_as_they_are(results, student, models, digits, name):
    pixels = np.round(_colored(digits.x_test) * 255)
    [image], [output] = models[name].inputs, models[name].outputs
    stored = models[name].run_stored({image.name: pixels.astype("uint8")})[output.name]
    scores = _scores(results, name)
    np.testing.assert_allclose(scores, stored / 256, atol=1e-6)
    # What the student computes of the same pixels; grey is the mean of three channels.
    mean, std = (CHANNEL_MEAN, CHANNEL_STD) if name == "by channel" else (0, 255)
    grey = ((pixels - np.array(mean)) / np.array(std)).mean(axis=-1, keepdims=True)
    logits = student.predict(grey.astype("float32"), verbose=0)
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    assert np.abs(scores - expected).mean() < 0.01
    assert (scores.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.97


@pytest.mark.parametrize("form", ["float32", "int8"])
def test_recordings_are_heard(results, heard, form):
    result = _result(results, f"audio_{form}")
    assert result.get("labels") == {"0": "crane", "1": "heron", "2": "crane"}, result
    scores = np.array([[row[str(index)] for index in range(3)] for row in result["scores"]])
    expected = heard[f"audio_{form}"].predict(RECORDINGS)
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize("form", ["float32", "uint8"])
def test_pixels_are_classified(results, segmented, digits, form):
    result = _result(results, f"segments_{form}")
    assert result == {"labels": ["sky", "road", "sea", "car"]}
    pixels = np.round(_colored(digits.x_test) * 255) / np.float32(255)
    expected = segmented[f"segments_{form}"].predict(pixels.astype("float32"))
    np.testing.assert_allclose(np.load(results / f"segments_{form}.npy"), expected, atol=1e-5)


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
    for name in ("grey", "integers", "nameless", "std by channel", "no image"):
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
