import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from keras_kd._representative import MAX_EXAMPLES, representative_examples, some_of
from keras_kd.teachers.joined import joined
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
        "data joined with a store": dataset.map(lambda image, y: (joined(image, {"": y}), y)),
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
    # One of each eight, in no order.
    numbers = np.searchsorted(x[:, 0, 0, 0], chosen[:, 0, 0, 0])
    np.testing.assert_array_equal(np.sort(numbers) // 8, np.arange(MAX_EXAMPLES))
    assert (np.diff(numbers) < 0).any()
    np.testing.assert_array_equal(representative_examples(x, IMAGE)["image"], chosen)


@pytest.mark.parametrize("count", [90, 25_000])
def test_the_steps_of_a_stream_stay_in_their_order(count):
    steps = np.arange(count, dtype="float32").reshape(-1, 1)
    inputs = (TensorInfo("step", (1, 1), np.dtype("float32")),)
    batches = (steps[start : start + 37] for start in range(0, count, 37))
    expected = steps[:10_000]
    for data in (steps, batches):
        examples = representative_examples(data, inputs, is_stream=True)
        np.testing.assert_array_equal(examples["step"], expected)
    some = some_of(examples, MAX_EXAMPLES)["step"]
    assert len(some) == min(count, MAX_EXAMPLES)
    # One from each of as many equal parts.
    parts = np.sort(some.ravel() * len(some) // len(expected))
    np.testing.assert_array_equal(parts, np.arange(len(some)))


def test_a_period_in_the_data_does_not_show():
    """Each tenth example is bright; evenly spaced ones would all be, or none."""
    x = _images(5000)
    x[::10] += 1
    share = (representative_examples(x, IMAGE)["image"].mean(axis=(1, 2, 3)) > 1).mean()
    assert 0.05 < share < 0.2


def test_batches_are_sampled_to_their_end():
    batches = [np.full((100, 4, 4, 1), number, np.float32) for number in range(40)]
    for data in (batches, (batch for batch in batches)):
        numbers = representative_examples(data, IMAGE)["image"][:, 0, 0, 0]
        assert len(numbers) == MAX_EXAMPLES
        assert len(np.unique(numbers)) == 40
        # Fair: 12.5 of each batch, with a deviation of 3.5.
        assert np.bincount(numbers.astype(int)).max() < 30


TWO = (
    TensorInfo("a", (1, 4), np.dtype("float32")),
    TensorInfo("acc_x", (1, 6, 2), np.dtype("float32")),
)
ALIKE = (TWO[0], TensorInfo("b", (1, 4), np.dtype("float32")))


def _two(count):
    random = np.random.default_rng(1)
    return random.random((count, 4), np.float32), random.random((count, 6, 2), np.float32)


def test_every_form_of_several_inputs():
    import keras
    import tensorflow as tf

    a, b = _two(20)
    y = np.arange(20)
    dataset = tf.data.Dataset.from_tensor_slices(((a, b), y)).batch(7)

    def representative_dataset():
        for number in range(20):
            yield [a[number : number + 1], b[number : number + 1]]

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, number):
            part = slice(10 * number, 10 * number + 10)
            return (a[part], b[part]), y[part]

    forms = {
        "list": [a, b],
        "tuple": (a, b),
        "list in another order": [b, a],
        "dict": {"a": a, "acc_x": b},
        "the user's name": {"a": a, "acc-x": b},
        "as in fit": ((a, b), y),
        "dict as in fit": ({"a": a, "acc-x": b}, y),
        "dataset of fit": dataset,
        "dataset without labels": dataset.map(lambda x, y: x),
        "dataset of dicts": dataset.map(lambda x, y: ({"a": x[0], "acc-x": x[1]}, y)),
        "function of TFLite": representative_dataset,
        "its generator": representative_dataset(),
        "function of dicts": lambda: iter([{"a": a, "acc_x": b}]),
        "function of signatures": lambda: iter([("serving_default", {"a": a, "acc_x": b})]),
        "PyDataset": Batches(),
    }
    for form, data in forms.items():
        examples = representative_examples(data, TWO)
        np.testing.assert_array_equal(examples["a"], a, err_msg=form)
        np.testing.assert_array_equal(examples["acc_x"], b, err_msg=form)


def test_inputs_of_one_shape_come_in_their_order():
    a, _ = _two(20)
    examples = representative_examples([a, a + 1], ALIKE)
    np.testing.assert_array_equal(examples["a"] + 1, examples["b"])


def test_the_function_of_tflite_for_one_input():
    x = _images(30)

    def representative_dataset():
        for image in x:
            yield [image[None]]

    np.testing.assert_array_equal(
        representative_examples(representative_dataset, IMAGE)["image"], x
    )
    with pytest.raises(TypeError, match=r"cannot be called without arguments.*takes none"):
        representative_examples(lambda path: x, IMAGE)


def _student(classes):
    import keras

    return keras.Sequential(
        [keras.Input((4, 4, 1), name="image"), keras.layers.Flatten(), keras.layers.Dense(classes)]
    )


@pytest.mark.parametrize("form", ["arrays", "one-hot", "dataset"])
def test_a_class_that_is_rare_is_in_the_sample(form):
    import tensorflow as tf

    x, y = _images(5000), np.arange(5000) % 3
    x[4321], y[4321] = 7, 3
    data = {
        "arrays": (x, y),
        "one-hot": (x, np.eye(4)[y]),
        "dataset": tf.data.Dataset.from_tensor_slices((x, y)).batch(100),
    }[form]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen = representative_examples(data, IMAGE, student=_student(4), input_range=(0, 7))
    assert (chosen["image"] == 7).all(axis=(1, 2, 3)).sum() == 1


def test_classes_that_are_missing_are_named():
    x, y = _images(5000), np.sort(np.arange(5000) % 10)
    student = _student(10)
    with pytest.warns(
        UserWarning, match=r"1 of 10 classes, without 1, 2, 3, 4, 5, 6, 7, 8, \.\.\."
    ):
        representative_examples((x[:500], y[:500]), IMAGE, student=student)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        representative_examples((x, y), IMAGE, student=student)
        # Not known, or not classes.
        representative_examples(x[:500], IMAGE, student=student)
        representative_examples((x[:500], x[:500, 0, 0]), IMAGE, student=student)
        representative_examples((x[:500], y[:500] * 1.0), IMAGE, student=student)


def test_sequences_of_several_lengths():
    words = (TensorInfo("words", (1, None, 2), np.dtype("float32")),)
    batches = [np.ones((3, length, 2), np.float32) * [0, 1] for length in (4, 5)]
    with pytest.raises(ValueError, match=r"of the shapes \[\(4, 2\), \(5, 2\)\].*pad or cut"):
        representative_examples(batches, words)


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


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_forms_of_the_documentation():
    import keras
    import tensorflow as tf

    from keras_kd import tflite

    page = (Path(__file__).parents[2] / "docs" / "quantization.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    x_train, y_train = _images(120), np.arange(120) % 3
    made = []

    class Recorded:
        @staticmethod
        def convert(*arguments):
            made.append(tflite.convert(*arguments).content)

    keras.utils.set_random_seed(0)
    exec(
        code,
        {
            "tflite": Recorded,
            "student": _student(3),
            "x_train": x_train,
            "y_train": y_train,
            "dataset": tf.data.Dataset.from_tensor_slices((x_train, y_train)).batch(32),
        },
    )
    assert len(made) == 4
    assert made[0] == made[1] == made[2]
