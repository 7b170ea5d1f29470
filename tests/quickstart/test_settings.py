from pathlib import Path

import pytest

from keras_kd.quickstart import Settings


def test_defaults_use_the_bundled_sample():
    settings = Settings(training_images=20, test_images=10)
    dataset = settings.load()
    assert dataset.name == "MNIST sample"
    assert (len(dataset.x_train), len(dataset.x_test)) == (20, 10)
    assert settings.output == Path("quickstart-results")


def test_the_output_may_be_a_string():
    assert Settings(output="results").output == Path("results")


@pytest.mark.parametrize(("epochs", "fine_tuning"), [(1, 1), (2, 1), (7, 4), (8, 4)])
def test_fine_tuning_takes_half_as_long(epochs, fine_tuning):
    assert Settings(epochs=epochs).fine_tuning_epochs == fine_tuning


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("epochs", -1), ("seed", -1), ("seed", 2**32), ("training_images", 0)],
)
def test_numbers_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"Received {name}={value}.*a whole number, at least"):
        Settings(**{name: value})


@pytest.mark.parametrize("value", [1.5, "3", True])
def test_numbers_of_other_types(value):
    with pytest.raises(TypeError, match=r"Received epochs=.*a whole number"):
        Settings(epochs=value)


def test_unknown_data_set():
    with pytest.raises(ValueError, match="one of 'mnist', 'fashion_mnist'"):
        Settings(dataset="imagenet")


def test_a_directory_needs_a_name():
    with pytest.raises(ValueError, match="data_dir='somewhere' without a data set"):
        Settings(data_dir=Path("somewhere"))


def test_a_directory_without_the_data_set(tmp_path):
    pytest.importorskip("tensorflow_datasets", reason="needs the `examples` extra")
    with pytest.raises(FileNotFoundError, match="does not hold 'mnist'"):
        Settings(dataset="mnist", data_dir=tmp_path).load()
