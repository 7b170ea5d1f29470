import numpy as np
import pytest

from keras_kd._representative import MAX_EXAMPLES, representative_examples
from keras_kd.tflite.tensors import TensorInfo

IMAGE = (TensorInfo("image", (1, 4, 4, 1), np.dtype("float32")),)


def _images(count):
    return np.random.default_rng(0).random((count, 4, 4, 1), np.float32)


def test_every_form_gives_the_same_examples():
    import tensorflow as tf

    x = _images(50)
    labels = np.zeros(50)
    dataset = tf.data.Dataset.from_tensor_slices((x, labels)).batch(20)
    forms = {
        "array": x,
        "float64": x.astype("float64"),
        "tensor": tf.constant(x),
        "dict": {"image": x},
        "dataset with labels": dataset,
        "dataset without labels": dataset.map(lambda image, label: image),
        "dataset of dicts": dataset.map(lambda image, label: ({"image": image}, label)),
        "generator": (x[i : i + 10] for i in range(0, 50, 10)),
        "list of batches": [x[:30], x[30:]],
    }
    for form, data in forms.items():
        examples = representative_examples(data, IMAGE)
        assert list(examples) == ["image"], form
        assert examples["image"].dtype == np.float32, form
        np.testing.assert_allclose(examples["image"], x, rtol=1e-6, err_msg=form)


def test_of_sorted_arrays_every_part_is_used():
    x = np.sort(_images(4000).reshape(-1)).reshape(4000, 4, 4, 1)
    chosen = representative_examples(x, IMAGE)["image"]
    assert len(chosen) == MAX_EXAMPLES
    np.testing.assert_array_equal(chosen[[0, -1]], x[[0, -1]])


def test_an_endless_generator_ends():
    def endless():
        while True:
            yield _images(64)

    assert len(representative_examples(endless(), IMAGE)["image"]) == MAX_EXAMPLES


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_images(5)[..., 0], r"shape \(5, 4, 4\).*add the channel at the end"),
        (_images(5)[0], r"shape \(4, 4, 1\).*add the batch in front"),
        (_images(5).repeat(2, axis=1), r"shape \(5, 8, 4, 1\).*reshape or resize"),
        ((_images(5) * 255).astype("uint8"), "type uint8.*real numbers scaled as .* / 255"),
        (_images(5) * np.nan, "NaN or infinite"),
        (_images(5) + np.float32(np.inf), "NaN or infinite"),
        (np.zeros((5, 4, 4, 1), np.float32), "every value is 0.0.*x_train"),
        ({"picture": _images(5)}, r"names \['picture'\].*\['image'\]"),
        ([_images(5)[0]], r"a batch of representative_data of shape \(4, 4, 1\)"),
        ([], "without an example.*at least one"),
    ],
)
def test_data_that_do_not_fit(data, message):
    with pytest.raises(ValueError, match=message):
        representative_examples(data, IMAGE)


@pytest.mark.parametrize("data", [7, b"mnist"])
def test_data_that_are_no_data(data):
    with pytest.raises(TypeError, match=r"representative_data of type .*tf.data.Dataset"):
        representative_examples(data, IMAGE)


def test_a_file_of_arrays(tmp_path):
    x = _images(20)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", image=x)
    for path in (tmp_path / "x.npy", str(tmp_path / "x.npz")):
        np.testing.assert_array_equal(representative_examples(path, IMAGE)["image"], x)
    with pytest.raises(FileNotFoundError, match=r"path '.*missing\.npy'"):
        representative_examples(tmp_path / "missing.npy", IMAGE)
