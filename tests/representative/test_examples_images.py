"""Directories of images and names of data sets in place of arrays."""

import os
import warnings

import keras
import numpy as np
import pytest
from keras import layers

from keras_kd import compression, tflite
from keras_kd._representative import MAX_EXAMPLES, representative_examples
from keras_kd.tflite.student import Signature
from keras_kd.tflite.tensors import TensorInfo


def student_with(*first):
    keras.utils.set_random_seed(0)
    image = keras.Input((12, 12, 1), name="image")
    x = image
    for layer in (*first, layers.Conv2D(4, 3, activation="relu"), layers.Flatten()):
        x = layer(x)
    return keras.Model(image, layers.Dense(10, name="logits")(x))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Twelve color images in two classes; black, white and noise are among them."""
    path = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index in range(12):
        image = rng.integers(0, 256, (20, 16, 3), "uint8")
        image[:4], image[4:8] = 0, 255
        folder = path / f"class {index % 2}"
        folder.mkdir(exist_ok=True)
        keras.utils.save_img(folder / f"{index}.png", image, scale=False)
    return path


def examples(source, student, **options):
    inputs = Signature(student).inputs
    return representative_examples(source, inputs, student=student, **options)["image"]


def test_without_a_range_images_are_scaled_to_0_to_1_with_a_warning(directory):
    student = student_with()
    with pytest.warns(UserWarning, match=r"input_range=\(low, high\).*scaled to 0\.\.1"):
        scaled = examples(directory, student)
    assert scaled.shape == (12, 12, 12, 1)
    assert (scaled.min(), scaled.max()) == pytest.approx((0, 1), abs=1e-4)


@pytest.mark.filterwarnings("error")
def test_with_a_range_images_are_scaled_to_it(directory):
    scaled = examples(str(directory), student_with(), input_range=(-1, 1))
    assert (scaled.min(), scaled.max()) == pytest.approx((-1, 1), abs=1e-3)
    scaled = examples(directory, student_with(layers.Rescaling(1 / 255)), input_range=(0, 255))
    assert (scaled.min(), scaled.max()) == pytest.approx((0, 255), abs=0.1)


def nested():
    inner = keras.Sequential([keras.Input((12, 12, 1)), layers.Rescaling(1 / 127.5, offset=-1)])
    return [layers.RandomFlip(), inner]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "first",
    [
        lambda: [layers.Rescaling(1 / 255)],
        lambda: [layers.Normalization(mean=[120.0], variance=[60.0**2])],
        nested,
    ],
)
def test_students_that_scale_pixels_themselves_get_pixels(directory, first):
    assert examples(directory, student_with(*first())).max() == pytest.approx(255, abs=0.1)


@pytest.mark.parametrize(
    "first",
    [
        lambda: [layers.Rescaling(2.0, offset=-1)],
        lambda: [layers.Normalization(mean=[0.485], variance=[0.229**2])],
        lambda: [layers.Conv2D(1, 1), layers.Rescaling(1 / 255)],
    ],
)
def test_other_preprocessing_is_not_for_pixels(directory, first):
    with pytest.warns(UserWarning, match=r"scaled to 0\.\.1"):
        assert examples(directory, student_with(*first())).max() == pytest.approx(1, abs=1e-3)


def test_a_directory_is_enough_for_int8_and_for_training_with_quantization(directory):
    student = student_with(layers.Rescaling(1 / 255))
    model = tflite.convert(student, "int8", directory, "microcontroller")
    assert model.inputs[0].scale == pytest.approx(1, rel=1e-3)
    aware = compression.quantize_aware(student_with(), directory, input_range=(0, 1))
    assert aware.get_layer("quant_logits")


def test_students_that_take_no_image(directory):
    vector = (TensorInfo("vector", (1, 5), np.dtype("float32")),)
    with pytest.raises(ValueError, match=r"vector \(5,\).*height, width, channels"):
        representative_examples(directory, vector)
    image = TensorInfo("image", (1, 8, 8, 3), np.dtype("float32"))
    with pytest.raises(ValueError, match="a student with one input"):
        representative_examples(directory, (image, *vector))


@pytest.mark.parametrize("source", ["no/such/directory", "no_such_set", "mnist/../..", ":test"])
def test_what_is_neither_a_directory_nor_a_name(source, tmp_path, monkeypatch):
    pytest.importorskip("tensorflow_datasets", reason="needs the `examples` extra")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"a directory of images, the name of a data set"):
        examples(source, student_with())


def test_a_name_in_tfds(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs the `examples` extra")
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.Scalar(np.int64),
    }
    rows = [
        (index, {"image": np.full((15, 20, 3), index, "uint8"), "label": index})
        for index in range(60)
    ]
    tfds.dataset_builders.store_as_tfds_dataset(
        name="own_images",
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets={"train": rows[:40], "test": rows[40:]},
        data_dir=tmp_path,
    )
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    student = student_with()
    train = examples("own_images", student, input_range=(0, 255))[:, 0, 0, 0]
    np.testing.assert_allclose(np.sort(train), np.arange(40), atol=0.01)
    test = examples("own_images:test", student, input_range=(0, 255))[:, 0, 0, 0]
    np.testing.assert_allclose(np.sort(test), np.arange(40, 60), atol=0.01)
    part = examples("own_images:test[:25%]", student, input_range=(0, 255))
    assert len(part) == 5
    with pytest.raises(ValueError, match=r"split 'validation'.*'test', 'train'"):
        examples("own_images:validation", student)


@pytest.mark.slow
@pytest.mark.skipif("TFDS_DATA_DIR" not in os.environ, reason="needs data sets in TFDS_DATA_DIR")
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist:test", "cifar10"])
def test_real_data_sets(name):
    student = student_with(layers.Rescaling(1 / 255))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        images = examples(name, student)
    assert images.shape == (MAX_EXAMPLES, 12, 12, 1)
    assert 10 < images.mean() < 245
