"""Each file is what its card says: its bytes, and its accuracy where it will run."""

import json
import os
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from keras_kd import data
from keras_kd.metrics import accuracy
from keras_kd.tflite import TFLiteModel, android, microcontroller

MODELS = Path(__file__).parents[2] / "tflite_models"
CARDS = json.loads((MODELS / "cards.json").read_text())
ON_MICROCONTROLLERS = [file for file, card in CARDS.items() if card["target"] == "microcontroller"]
FOR_ANDROID = [file for file, card in CARDS.items() if card["target"] == "android"]
NAMES = {"digits": "mnist", "clothes": "fashion_mnist"}
# Kernels of another processor round differently: that may turn one answer in a thousand.
TOLERANCE = 1e-3
ALL = pytest.mark.parametrize("file", CARDS)


def load(file):
    return TFLiteModel.load(MODELS / file)


def fitting(images, model):
    return np.repeat(images, model.inputs[0].shape[-1], axis=-1)


@pytest.fixture(scope="session")
def bundled():
    """Test images that are in the repository, by subject: images and labels."""
    sample = data.load_sample()
    with np.load(MODELS / "clothes" / "examples.npz") as arrays:
        clothes = arrays["x_test"].astype("float32") / 255, arrays["y_test"].astype("int64")
    return {"digits": (sample.x_test, sample.y_test), "clothes": clothes}


@pytest.fixture(scope="session")
def whole_test_sets():
    """All test images by subject."""
    directory = os.environ.get("TFDS_DATA_DIR")
    if not directory:
        pytest.skip("TFDS_DATA_DIR does not name a directory with the whole data sets")
    sets = {subject: data.load(name, directory) for subject, name in NAMES.items()}
    return {subject: (dataset.x_test, dataset.y_test) for subject, dataset in sets.items()}


def test_every_form_of_every_subject_is_there_for_every_target():
    forms = ["float32", "int8", "pruned_int8"]
    targets = ["android", "microcontroller", "web"]
    expected = {
        f"{subject}/{form}_{target}.tflite"
        for subject in NAMES
        for form in forms
        for target in targets
    }
    assert set(CARDS) == expected
    assert {path.relative_to(MODELS).as_posix() for path in MODELS.rglob("*.tflite")} == expected


@ALL
def test_the_bytes_are_those_of_the_card(file):
    card, content = CARDS[file], (MODELS / file).read_bytes()
    assert sha256(content).hexdigest() == card["sha256"]
    assert len(content) == card["bytes"] < 200_000
    # What is in all of them is at most what any gzip makes of it.
    assert load(file).compressed_size == pytest.approx(card["gzip_bytes"], rel=0.02)


@ALL
def test_the_file_holds_what_the_card_says(file):
    card, model = CARDS[file], load(file)
    assert model.operators == card["operators"]
    assert [str(tensor) for tensor in model.inputs] == card["inputs"]
    assert [str(tensor) for tensor in model.outputs] == card["outputs"]
    integers = card["form"] != "float32"
    assert ("INT8" in model.flatbuffer.weight_types()) == integers
    in_and_out = "int8" if integers and card["target"] == "microcontroller" else "float32"
    assert {tensor.dtype.name for tensor in (*model.inputs, *model.outputs)} == {in_and_out}


@ALL
def test_accuracy_on_the_bundled_images(file, bundled):
    card, model = CARDS[file], load(file)
    images, labels = bundled[file.split("/")[0]]
    assert len(images) == card["bundled"]["images"]
    measured = accuracy(model.predict(fitting(images, model)), labels)
    tolerance = max(TOLERANCE, 1.01 / len(images))
    assert measured == pytest.approx(card["bundled"]["accuracy"], abs=tolerance)


@ALL
def test_accuracy_on_the_whole_test_set(file, whole_test_sets):
    card, model = CARDS[file], load(file)
    images, labels = whole_test_sets[file.split("/")[0]]
    assert len(images) == card["data"]["test_images"]
    measured = accuracy(model.predict(fitting(images, model)), labels)
    assert measured == pytest.approx(card["accuracy"], abs=TOLERANCE)


@pytest.mark.parametrize("file", ON_MICROCONTROLLERS)
def test_tflm_computes_what_litert_does_in_the_arena_of_the_card(file, bundled):
    pytest.importorskip("tflite_micro")
    card, model = CARDS[file], load(file)
    images = model.quantize_inputs(bundled[file.split("/")[0]][0][:100])
    on_device = microcontroller.run_stored(model, images)
    expected = model.run_stored(images, kernels="builtin")
    for name, values in on_device.stored_outputs.items():
        if card["form"] == "float32":
            np.testing.assert_allclose(values, expected[name], atol=1e-5)
        else:
            np.testing.assert_array_equal(values, expected[name])
    assert on_device.arena_bytes == pytest.approx(card["arena_bytes"], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("file", ON_MICROCONTROLLERS)
def test_accuracy_in_tflm(file, bundled):
    pytest.importorskip("tflite_micro")
    card, model = CARDS[file], load(file)
    images, labels = bundled[file.split("/")[0]]
    (scores,) = microcontroller.run(model, images).outputs.values()
    tolerance = max(TOLERANCE, 1.01 / len(images))
    expected = card["bundled"]["accuracy_in_tflm"]
    assert accuracy(scores, labels) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("file", FOR_ANDROID)
def test_files_for_android_say_what_they_are(file):
    card, metadata = CARDS[file], android.read_metadata(load(file))
    assert len(metadata.class_names) == 10
    assert (metadata.mean, metadata.std) == ((0.0,), (255.0,))
    assert card["data"]["licence"] in metadata.license


def test_distillation_and_compression_kept_the_accuracy():
    for card in CARDS.values():
        assert card["accuracy"] > card["teacher"]["accuracy"] - 0.03
        assert card["weights"] * 10 < card["teacher"]["weights"]
        assert (card["sparsity"] > 0.65) == (card["form"] == "pruned_int8")


def test_pruning_shows_after_gzip():
    for subject in NAMES:
        dense, pruned = (
            CARDS[f"{subject}/{form}_microcontroller.tflite"]["gzip_bytes"]
            for form in ("int8", "pruned_int8")
        )
        assert pruned < 0.8 * dense


def test_pages_are_made_from_the_cards(scripts):
    cards = scripts("cards")
    assert (MODELS / "README.md").read_text() == cards.overview(CARDS)
    for file, card in CARDS.items():
        assert (MODELS / file).with_suffix(".md").read_text() == cards.page(card)
