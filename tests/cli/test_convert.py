import json
import os

import keras
import numpy as np
import pytest

from keras_kd import cli, tflite

needs_tflm = pytest.mark.skipif(
    not tflite.microcontroller.is_installed(), reason="needs tflite-micro"
)


def test_to_a_file_with_evidence(models, folder, run):
    out = run("convert", models / "model.keras", "--output", "student.tflite")
    assert os.listdir(folder) == ["student.tflite"]
    for text in ("image float32[1, 6, 6, 1]", "CONV_2D", "random examples", "student.tflite"):
        assert text in out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.keras", "model.h5", "exported"])
def test_all_forms_give_the_same_beside_the_model_by_default(name, models, tmp_path, run):
    (tmp_path / name).symlink_to(models / name)
    examples = models / "examples.npy"
    out = run("convert", tmp_path / name, "--output", tmp_path, "--verification-data", examples)
    file = tflite.TFLiteModel.load(tmp_path / f"{(models / name).stem}.tflite")
    x = np.load(examples)
    expected = tflite.TFLiteModel.load(models / "model.tflite").predict(x)
    np.testing.assert_allclose(file.predict(x), expected, atol=1e-6)
    assert "30 given examples: 100.00 %" in out


def test_beside_the_model_by_default(models, folder, run):
    (folder / "mine.keras").write_bytes((models / "model.keras").read_bytes())
    run("convert", "mine.keras")
    assert sorted(os.listdir(folder)) == ["mine.keras", "mine.tflite"]


def test_json_is_all_that_is_printed(models, folder, run):
    result = json.loads(
        run(
            *("convert", models / "model.keras", "--json", "--output", "x.tflite"),
            *("--quantization", "int8", "--representative-data", models / "examples.npz"),
            *("--verification-data", models / "examples.npy"),
            *("--verification-labels", models / "labels.npy", "--input-range", 0, 1),
        )
    )
    assert result["files"] == ["x.tflite"]
    assert result["inspection"]["size"] == os.path.getsize("x.tflite")
    assert result["verification"]["student_accuracy"] == 1.0
    assert result["verification"]["data"] == "given"


@needs_tflm
def test_a_project_for_a_microcontroller(models, folder, run):
    run(
        *("convert", models / "model.keras", "--output", "firmware"),
        *("--quantization", "int8", "--target", "microcontroller"),
        *("--representative-data", models / "examples.npy", "--class-names", models / "labels.txt"),
        *("--name", "shapes"),
    )
    assert os.listdir(folder) == ["firmware"]
    written = os.listdir(folder / "firmware")
    assert {"model.tflite", "shapes_data.cc", "main.cc", "README.md", "labels.txt"} <= set(written)
    assert (folder / "firmware" / "labels.txt").read_text() == "one\ntwo\nthree\n"
    (tensor,) = tflite.TFLiteModel.load(folder / "firmware" / "model.tflite").inputs
    assert tensor.dtype == np.int8


@needs_tflm
def test_a_vocabulary_is_for_a_model_of_text(models, folder, capfd):
    (folder / "vocab.txt").write_text("\n[UNK]\nword\n")
    command = f"convert {models}/model.keras --target microcontroller --output firmware"
    options = f"--class-names {models}/labels.txt --vocabulary vocab.txt"
    assert cli.main([*command.split(), *options.split()]) == 2
    assert "a vocabulary for a model with image float32" in capfd.readouterr().err
    assert os.listdir(folder) == ["vocab.txt"]


def test_bytes_of_a_camera(models, folder, run):
    run(
        *("convert", models / "model.keras", "--output", "bytes.tflite", "--quantization", "int8"),
        *("--representative-data", models / "examples.npy", "--input-range", 0, 1),
        *("--input-type", "uint8", "--output-type", "int8"),
    )
    model = tflite.TFLiteModel.load("bytes.tflite")
    [image], [scores] = model.inputs, model.outputs
    assert (image.dtype, image.zero_point, scores.dtype) == (np.uint8, 0, np.int8)
    assert image.scale == pytest.approx(1 / 255, rel=1e-6)


def test_labels_and_metadata_for_a_phone(models, folder, run):
    run(
        *("convert", models / "model.keras", "--output", "phone.tflite", "--color-input"),
        *("--quantization", "int8", "--representative-data", models / "examples.npy"),
        *("--class-names", models / "labels.txt", "--author", "Ada", "--license", "Apache-2.0"),
        *("--description", "Counts.", "--model-version", "1.2.0", "--input-range", -1, 1),
    )
    file = tflite.TFLiteModel.load(folder / "phone.tflite")
    assert file.inputs[0].shape == (1, 6, 6, 3)
    metadata = tflite.android.read_metadata(file)
    assert tuple(metadata.class_names) == ("one", "two", "three")
    texts = (metadata.name, metadata.author, metadata.license, metadata.version)
    assert texts == ("model", "Ada", "Apache-2.0", "1.2.0")
    assert (metadata.description, metadata.mean, metadata.std) == ("Counts.", (127.5,), (127.5,))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((5, 4, 1), ["--input-kind", "numbers"], ("numbers", None)),
        ((20,), ["--sample-rate", 8000], (None, 8000)),
        ((4,), [], (None, None)),
    ],
    ids=["spectrogram", "recording", "measurements"],
)
def test_labels_of_what_is_no_image(models, folder, run, shape, options, expected):
    layers = [keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
    keras.Sequential([keras.Input(shape), *layers]).save("own.keras")
    run("convert", "own.keras", "--class-names", models / "labels.txt", *options)
    metadata = tflite.android.read_metadata(tflite.TFLiteModel.load("own.tflite"))
    assert metadata.class_names == ("one", "two", "three")
    assert (metadata.input_kind, metadata.sample_rate) == expected
    assert (metadata.mean, metadata.std) == ((0.0,), (1.0,))


def test_logits_get_a_softmax(folder, run):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.save("logits.keras")
    run("convert", "logits.keras", "--softmax")
    scores = tflite.TFLiteModel.load("logits.tflite").predict(np.eye(4, dtype="float32"))
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


def test_layers_of_ones_own(folder, run, monkeypatch):
    (folder / "own_layers_of_cli.py").write_text(
        "import keras\n\n\nclass Twice(keras.layers.Layer):\n"
        "    def call(self, x):\n        return 2 * x\n"
    )
    monkeypatch.syspath_prepend(folder)
    from own_layers_of_cli import Twice

    keras.Sequential([keras.Input((4,)), Twice()]).save("own.keras")
    run("convert", "own.keras", "--custom-objects", "own_layers_of_cli.py")
    x = np.eye(4, dtype="float32")
    np.testing.assert_array_equal(tflite.TFLiteModel.load("own.tflite").predict(x), 2 * x)
