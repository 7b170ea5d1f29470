"""A teacher is asked once about each example, whatever the form of teacher and data."""

import itertools
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from _disk import files_of_at_most, without_permission

from keras_kd.teachers import Ensemble, LastExit, NumpyFunction, StoredTeacher
from keras_kd.teachers.stored import database


def kernels(x):
    """A fixed function of the inputs."""
    return np.stack([x.sum(axis=-1), 2 * x[:, 0], -x[:, 1]], axis=-1).astype("float32")


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y, size, **options):
        super().__init__(**options)
        self.x, self.y, self.size = x, y, size

    def __len__(self):
        return -(-len(self.x) // self.size)

    def __getitem__(self, number):
        part = slice(number * self.size, (number + 1) * self.size)
        return self.x[part], self.y[part]


def forms_of(x, y):
    return {
        "an array": x,
        "x alone": (x,),
        "pairs": (x, y),
        "weights": (x, y, np.ones(len(x))),
        "tensors": (tf.constant(x), tf.constant(y)),
        "tf.data": tf.data.Dataset.from_tensor_slices((x, y)).batch(7),
        "tf.data of x": tf.data.Dataset.from_tensor_slices(x).batch(7),
        "PyDataset": Batches(x, y, 6),
        "generator": ((x[i : i + 9], y[i : i + 9]) for i in range(0, len(x), 9)),
        "list of batches": [(x[:15], y[:15]), (x[15:], y[15:])],
    }


@pytest.mark.fast_rows(5)
@pytest.mark.parametrize("form", forms_of(np.zeros((20, 1)), np.zeros(20)))
def test_data_in_every_form(form, teacher, examples, tmp_path):
    x, _ = examples
    stored = StoredTeacher.create(
        teacher, forms_of(*examples)[form], tmp_path / "s", dtype="float32"
    )
    assert len(stored) == stored.examples == 20
    np.testing.assert_allclose(
        stored.read(np.arange(20))["logits"], teacher.predict(x, verbose=0), atol=1e-6
    )


def test_sparse_and_ragged_data_are_refused(teacher, examples, tmp_path):
    data = tf.data.Dataset.from_tensor_slices(examples).batch(5)
    stored = StoredTeacher.create(teacher, data, tmp_path / "dense")
    for other, name in (
        (data.map(lambda x, y: (tf.sparse.from_dense(x), y)), "SparseTensor"),
        (data.map(lambda x, y: (tf.RaggedTensor.from_tensor(x), y)), "RaggedTensor"),
    ):
        for given in (other, iter(other)):
            with pytest.raises(TypeError, match=f"{name}.* among the data.*dense"):
                StoredTeacher.create(teacher, given, tmp_path / "s")
        with pytest.raises(TypeError, match=f"{name}.* among the data"):
            stored.join(other)
    assert not (tmp_path / "s").exists()


def test_logits_are_taken_from_behind_a_softmax(dense_model, examples, tmp_path):
    x, _ = examples
    sure = dense_model(activation="softmax")
    sure.layers[-1].kernel.assign(100.0 * sure.layers[-1].kernel)
    logits = sure.layers[0](x) @ sure.layers[-1].kernel + sure.layers[-1].bias
    stored = StoredTeacher.create(sure, (x,), tmp_path / "s", dtype="float32")
    np.testing.assert_allclose(stored.read(np.arange(20))["logits"], logits, rtol=1e-4, atol=1e-4)
    said = stored({"logits:values": stored.read([3])["logits"]}, None)
    np.testing.assert_allclose(said.outputs, sure(x[3:4]), atol=1e-6)


def test_outputs_and_features_come_from_one_pass(examples, tmp_path):
    calls = []

    @keras.saving.register_keras_serializable(package="tests")
    class Counting(keras.layers.Layer):
        def call(self, x):
            tf.py_function(lambda: calls.append(1), [], [])
            return x

    inner = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(4, name="block3")], name="backbone"
    )
    inputs = keras.Input((5,))
    features = inner(Counting()(inputs))
    model = keras.Model(
        inputs, {"label": keras.layers.Dense(3)(features), "box": keras.layers.Dense(4)(features)}
    )
    x, _ = examples
    calls.clear()
    stored = StoredTeacher.create(
        model, (x,), tmp_path / "s", outputs=["logits", "backbone/block3"], dtype="float32"
    )
    # The first batch once more, for the shapes.
    assert len(calls) == 2
    read = stored.read([2, 19])
    expected = model.predict(x[[2, 19]], verbose=0)
    np.testing.assert_allclose(read["logits/label"], expected["label"], atol=1e-6)
    np.testing.assert_allclose(read["logits/box"], expected["box"], atol=1e-6)
    np.testing.assert_allclose(read["backbone/block3"], inner(x[[2, 19]]), atol=1e-6)
    assert set(read) == {"logits/label", "logits/box", "backbone/block3"}


def test_batches_of_all_sizes_take_one_trace(examples, tmp_path):
    traces = []

    def function(x):
        traces.append(x.shape)
        return tf.matmul(x, tf.ones((5, 3)))

    StoredTeacher.create(function, (examples[0],), tmp_path / "s", batch_size=8)
    assert traces == [(None, 5)]


def test_functions_outside_of_tensorflow(examples, tmp_path):
    x, _ = examples
    teacher = NumpyFunction(kernels, output_shape=(3,))
    stored = StoredTeacher.create(teacher, (x,), tmp_path / "s", dtype="float32", batch_size=8)
    np.testing.assert_allclose(stored.read(np.arange(20))["logits"], kernels(x), atol=1e-6)


def test_a_tf_keras_teacher(examples, tmp_path):
    api = pytest.importorskip("tf_keras")
    inputs = api.Input((5,))
    hidden = api.layers.Dense(4, name="hidden")(inputs)
    teacher = api.Model(inputs, api.layers.Dense(3, activation="softmax")(hidden))
    x, _ = examples
    stored = StoredTeacher.create(
        teacher, (x,), tmp_path / "s", outputs=["logits", "hidden"], dtype="float32"
    )
    read = stored.read([7])
    np.testing.assert_allclose(
        keras.ops.softmax(read["logits"]), teacher.predict(x[7:8], verbose=0), atol=1e-6
    )
    assert read["hidden"].shape == (1, 4)


def test_members_of_an_ensemble_are_stored(dense_model, examples, tmp_path):
    x, _ = examples
    members = [dense_model(seed=1, name="one"), dense_model(seed=2, name="two")]
    stored = StoredTeacher.create(Ensemble(members, [3, 1]), (x,), tmp_path / "s", dtype="float32")
    read = stored.read([0, 1])["logits"]
    assert read.shape == (2, 2, 3)
    np.testing.assert_allclose(read[:, 1], members[1].predict(x[:2], verbose=0), atol=1e-6)
    with pytest.raises(ValueError, match=r"top_k=2 for logits of several teachers.*uint8"):
        StoredTeacher.create(Ensemble(members), (x,), tmp_path / "t", top_k=2)


def test_top_k(teacher, examples, tmp_path):
    x, _ = examples
    stored = StoredTeacher.create(
        teacher, (x,), tmp_path / "s", top_k=2, dtype="float32", temperatures=(1.0, 4.0)
    )
    logits = teacher.predict(x, verbose=0)
    read = stored.read(np.arange(20))
    np.testing.assert_array_equal(
        read["logits:classes"], np.argsort(-logits, axis=-1, kind="stable")[:, :2]
    )
    assert read["logits:rest"].shape == (20, 2)
    with pytest.raises(
        ValueError, match=r"top_k=2 for outputs=.'hidden'.*features are stored whole"
    ):
        StoredTeacher.create(teacher, (x,), tmp_path / "t", outputs="hidden", top_k=2)


def test_the_teacher_sees_its_part_of_the_inputs(teacher, examples, tmp_path):
    x, _ = examples
    inputs = {"small": x[:, :2], "large": x, "key": np.arange(20) + 5}
    stored = StoredTeacher.create(
        teacher, (inputs,), tmp_path / "s", key="key", teacher_inputs="large", dtype="float32"
    )
    np.testing.assert_allclose(
        stored.read([5, 24])["logits"], teacher.predict(x[[0, 19]], verbose=0), atol=1e-6
    )
    doubled = StoredTeacher.create(
        teacher, (x,), tmp_path / "t", teacher_inputs=lambda x: 2.0 * x, dtype="float32"
    )
    np.testing.assert_allclose(
        doubled.read([1])["logits"], teacher.predict(2 * x[1:2], verbose=0), atol=1e-6
    )


def test_keys_that_are_strings(teacher, examples, tmp_path):
    x, _ = examples
    names = np.array([f"image_{number}.png" for number in range(20)])
    stored = StoredTeacher.create(
        teacher, ({"image": x, "name": names},), tmp_path / "s", key="name"
    )
    expected = teacher.predict(x[[4, 11]], verbose=0)
    read = stored.read(["image_4.png", b"image_11.png"])
    np.testing.assert_allclose(read["logits"], expected, rtol=2e-3, atol=1e-4)


def test_several_inputs(examples, tmp_path):
    x, y = examples
    inputs = [keras.Input((5,), name="one"), keras.Input((5,), name="two")]
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Add()(inputs)))
    expected = model.predict([x, 2 * x], verbose=0)
    for number, form in enumerate(([x, 2 * x], (x, 2 * x), {"one": x, "two": 2 * x})):
        stored = StoredTeacher.create(model, (form, y), tmp_path / str(number), dtype="float32")
        np.testing.assert_allclose(stored.read(np.arange(20))["logits"], expected, atol=1e-5)


class Stop(Exception):
    """Ends the data early."""


def interrupted(x, after):
    for first in range(0, len(x), 4):
        if first >= after:
            raise Stop
        yield (x[first : first + 4],)


def test_an_interrupted_store_goes_on(teacher, examples, tmp_path):
    x, _ = examples
    with pytest.raises(Stop):
        StoredTeacher.create(teacher, interrupted(x, 12), tmp_path / "s", dtype="float32")
    with pytest.raises(
        ValueError, match=r"was not finished: it has the first 12 examples.*partial"
    ):
        StoredTeacher(tmp_path / "s")
    part = StoredTeacher(tmp_path / "s", partial=True)
    expected = teacher.predict(x, verbose=0)
    np.testing.assert_allclose(part.read(np.arange(12))["logits"], expected[:12], atol=1e-6)
    with pytest.raises(ValueError, match=r"without stored outputs.*: 12"):
        part.read([12])

    # Batches of another size, of which one is there in part.
    stored = StoredTeacher.create(teacher, (x,), tmp_path / "s", dtype="float32", batch_size=5)
    np.testing.assert_allclose(stored.read(np.arange(20))["logits"], expected, atol=1e-6)


def test_what_goes_on_is_the_same(teacher, dense_model, examples, tmp_path):
    x, _ = examples
    with pytest.raises(Stop):
        StoredTeacher.create(teacher, interrupted(x, 12), tmp_path / "s")
    with pytest.raises(ValueError, match="the teacher's weights"):
        StoredTeacher.create(dense_model(units=6, seed=9, name=teacher.name), (x,), tmp_path / "s")
    with pytest.raises(ValueError, match="float"):
        StoredTeacher.create(teacher, (x,), tmp_path / "s", dtype="float32")
    with pytest.raises(ValueError, match=r"example number 0, which is not the one.*same order"):
        StoredTeacher.create(teacher, (x[::-1],), tmp_path / "s")
    with pytest.raises(ValueError, match=r"4 examples for the store .*, which has 12"):
        StoredTeacher.create(teacher, (x[:4],), tmp_path / "s")
    with pytest.raises(ValueError, match=r"8 examples for the store .*, which has 12"):
        StoredTeacher.create(teacher, iter([(x[:4],), (x[4:8],)]), tmp_path / "s")
    assert len(StoredTeacher.create(teacher, (x,), tmp_path / "s")) == 20


def test_a_complete_store_is_not_made_again(examples, tmp_path):
    x, _ = examples
    calls = []

    def said(x):
        calls.append(len(x))
        return kernels(x)

    for _ in range(2):
        StoredTeacher.create(NumpyFunction(said, (3,)), (x,), tmp_path / "s", batch_size=4)
    # In the second run the first batch, for the shapes.
    assert calls == [4] * 7
    with pytest.raises(ValueError, match=r"24 examples for the store .*, which has 20"):
        StoredTeacher.create(
            NumpyFunction(said, (3,)), (np.concatenate([x, x[:4]]),), tmp_path / "s"
        )


def test_the_disk_is_asked_first(teacher, examples, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(
        OSError, match=r"20 records of about 28 bytes.*560 bytes on a disk with 100.*top_k"
    ):
        StoredTeacher.create(teacher, (examples[0],), tmp_path / "s")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"outputs": []}, ValueError, "at least one name"),
        ({"outputs": ["logits", "logits"]}, ValueError, "each once"),
        ({"outputs": 3}, TypeError, "outputs=3.*name of a layer"),
        ({"outputs": "nowhere"}, ValueError, "layer name 'nowhere'.*hidden"),
        ({"dtype": "int4"}, ValueError, "dtype='int4'.*float16"),
        ({"versions": 2}, ValueError, "versions=2 without augment"),
        ({"augment": 3}, TypeError, "augment=3.*a function"),
        ({"key": "key"}, ValueError, "inputs ndarray for key='key'.*dict of inputs"),
        ({"key": 3}, TypeError, "key=3.*name of an entry"),
        ({"batch_size": 0}, ValueError, "batch_size=0"),
        ({"top_k": 7}, ValueError, "top_k=7.*3 classes"),
        ({"temperatures": (2.0,)}, ValueError, "temperatures=.* without top_k"),
        ({"augment": lambda image: image}, TypeError, r"parameters \(image\).*image, seed"),
    ],
)
def test_arguments_that_cannot_be(arguments, error, message, teacher, examples, tmp_path):
    with pytest.raises(error, match=message):
        StoredTeacher.create(teacher, (examples[0],), tmp_path / "s", **arguments)


@pytest.mark.parametrize(
    ("dataset", "error", "message"),
    [
        ([np.zeros((3, 5))], TypeError, "a dataset of type list.*as a tuple"),
        ("x.npy", TypeError, "a dataset of type str"),
        (3, TypeError, "a dataset of type int"),
        ((np.zeros((3, 5)), np.zeros(2)), ValueError, "the same number in all"),
        (np.zeros((0, 5)), ValueError, "above 0"),
        (iter([]), ValueError, "a dataset without examples"),
        (
            tf.data.Dataset.from_tensors(np.zeros((2, 5), "float32")).repeat(),
            ValueError,
            "without an end.*repeat",
        ),
        (
            tf.data.Dataset.from_tensor_slices((np.zeros((3, 5)), np.zeros(3))),
            ValueError,
            r"the shapes \(5,\), \(\).*dataset.batch",
        ),
        (
            tf.data.Dataset.from_tensor_slices((np.zeros((3, 5)), np.zeros((3, 2)))),
            ValueError,
            r"the shapes \(5,\), \(2,\).*dataset.batch",
        ),
    ],
)
def test_data_that_cannot_be(dataset, error, message, teacher, tmp_path):
    with pytest.raises(error, match=message):
        StoredTeacher.create(teacher, dataset, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_keys_that_come_twice(teacher, examples, tmp_path):
    x, _ = examples
    inputs = {"image": x, "key": np.arange(20) % 15}
    with pytest.raises(
        ValueError, match=r"the key 0 a second time, at the example number 15.*repeat"
    ):
        StoredTeacher.create(teacher, (inputs,), tmp_path / "s", key="key", batch_size=8)


def test_teachers_that_cannot_be_asked(teacher, examples, tmp_path):
    stored = StoredTeacher.create(teacher, (examples[0],), tmp_path / "s")
    with pytest.raises(ValueError, match="stored teacher 'wise_teacher' to store"):
        StoredTeacher.create(stored, (examples[0],), tmp_path / "t")
    with pytest.raises(ValueError, match="LastExit"):
        StoredTeacher.create(LastExit(), (examples[0],), tmp_path / "t")


def test_probabilities_that_nobody_can_see_are_noticed(examples, tmp_path):
    def hidden(x):
        powers = tf.exp(x[:, :3])
        return powers / tf.reduce_sum(powers, axis=-1, keepdims=True)

    with pytest.warns(UserWarning, match="probabilities, made by something other than a softmax"):
        StoredTeacher.create(hidden, (examples[0],), tmp_path / "s")


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (lambda z: keras.ops.softmax(z) ** 2, r"probabilities, made by.*log\(p / \(1 - p\)\)"),
        (
            lambda z: keras.ops.concatenate([keras.ops.softmax(z), z], axis=-1),
            "joins probabilities.*an output for each kind",
        ),
    ],
)
def test_what_was_made_of_probabilities_is_noticed(dense_model, examples, tmp_path, end, message):
    inner = dense_model()
    teacher = keras.Model(inner.inputs, end(inner.outputs[0]))
    with pytest.warns(UserWarning, match=message):
        StoredTeacher.create(teacher, examples[0], tmp_path / "stored")


def test_the_largest_logits_of_flattened_softmaxes_are_refused(examples, tmp_path):
    inputs = keras.Input((5,))
    maps = keras.layers.Reshape((2, 3))(keras.layers.Dense(6)(inputs))
    teacher = keras.Model(inputs, keras.layers.Flatten()(keras.layers.Softmax()(maps)))
    with pytest.raises(ValueError, match=r"a softmax for every 3 of them.*leave out top_k"):
        StoredTeacher.create(teacher, examples[0], tmp_path / "stored", top_k=2)


def test_a_disk_that_is_full_while_the_teacher_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "COMMIT_SECONDS", 0.0)
    x = np.random.default_rng(0).normal(size=(4000, 50)).astype("float32")
    asked = []

    def said(batch):
        asked.append(len(batch))
        return batch

    def store():
        teacher = NumpyFunction(said, (50,))
        return StoredTeacher.create(teacher, (x,), tmp_path / "s", dtype="float32", batch_size=100)

    with (
        files_of_at_most(300_000),
        pytest.raises(OSError, match=r"while writing the store '.*/s', which is valid up to"),
    ):
        store()
    assert len(asked) < 41
    np.testing.assert_array_equal(store().read(np.arange(4000))["logits"], x)
    assert {path.name for path in tmp_path.iterdir()} == {"s"}


def test_a_store_that_may_not_be_read_is_named(tmp_path):
    x = np.zeros((4, 3), "float32")

    def store(path):
        return StoredTeacher.create(NumpyFunction(lambda batch: batch, (3,)), (x,), path)

    store(tmp_path / "s")
    for read in (StoredTeacher, store):
        with (
            without_permission(tmp_path / "s"),
            pytest.raises(PermissionError, match=r"Permission denied: '.*/s'"),
        ):
            read("s")


SCRIPT = """
import sys, time, numpy as np
from keras_kd.teachers import NumpyFunction, StoredTeacher
x = np.arange(4000, dtype="float32").reshape(1000, 4)
def said(batch):
    print(int(batch[0, 0]) // 4, time.monotonic(), flush=True)
    time.sleep(0.02)
    return batch[:, :3] * 2
StoredTeacher.create(NumpyFunction(said, (3,)), (x,), sys.argv[1], dtype="float32", batch_size=5)
"""


@pytest.mark.slow
def test_a_killed_store_goes_on_and_loses_at_most_the_last_second(tmp_path):
    """By the times at which the teacher was asked, on the clock that decides when to commit."""
    path, stored = tmp_path / "s", 0
    generator = np.random.default_rng()
    for batches in (*generator.integers(1, 90, 6), None):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(path)], stdout=subprocess.PIPE, text=True
        )
        lines = list(itertools.islice(process.stdout, batches))
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        asked = [line.split() for line in [*lines, *rest.splitlines()]]
        # The first batch tells what the outputs are like.
        starts, times = [int(start) for start, _ in asked[1:]], [float(time) for _, time in asked]
        # Only what had not been committed is asked for again.
        assert starts == [*range(stored, 1000, 5)][: len(starts)]
        before, stored = stored, _count(path)
        assert stored >= before
        # Each of these but the last was appended before a second had passed since the commit.
        lost = times[1 + (stored - before) // 5 :]
        assert not lost[2:] or lost[-2] - lost[0] < database.COMMIT_SECONDS
    assert stored == 1000
    x = np.arange(4000, dtype="float32").reshape(1000, 4)
    np.testing.assert_array_equal(StoredTeacher(path).read(np.arange(1000))["logits"], 2 * x[:, :3])


def _count(path):
    """How many examples are in a store, which a kill may have left before the first commit."""
    if not path.exists() or not path.stat().st_size:
        return 0
    return len(StoredTeacher(path, partial=True))
