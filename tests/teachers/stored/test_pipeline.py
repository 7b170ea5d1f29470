"""Each example gets its own outputs, in whatever order and batches it comes."""

import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_kd
from keras_kd.compression import PolynomialSchedule
from keras_kd.losses import Hint, SoftTargets
from keras_kd.teachers import Ensemble, StoredTeacher
from keras_kd.teachers.joined import STUDENT_INPUTS, TEACHER_OUTPUTS

VALUES = "logits:values"


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y, size, **options):
        super().__init__(**options)
        self.x, self.y, self.size = x, y, size
        self.epochs = 0

    def __len__(self):
        return -(-len(self.y) // self.size)

    def __getitem__(self, number):
        part = slice(number * self.size, (number + 1) * self.size)
        return keras.tree.map_structure(lambda array: array[part], self.x), self.y[part]

    def on_epoch_end(self):
        self.epochs += 1


def keyed(x):
    return {"image": x, "key": 3 * np.arange(len(x)) + 7}


@pytest.fixture
def stored(teacher, examples, tmp_path):
    return StoredTeacher.create(teacher, examples, tmp_path / "s", dtype="float32")


@pytest.fixture
def stored_by_key(teacher, examples, tmp_path):
    x, y = examples
    return StoredTeacher.create(teacher, (keyed(x), y), tmp_path / "k", key="key", dtype="float32")


def collected(batches):
    """All inputs, outputs and labels, in their order, and the sizes of the batches."""
    x, outputs, labels, sizes = [], [], [], []
    for joined, y in batches:
        x.append(np.asarray(joined[STUDENT_INPUTS]))
        outputs.append(np.asarray(joined[TEACHER_OUTPUTS][VALUES]))
        labels.append(np.asarray(y))
        sizes.append(len(x[-1]))
    return np.concatenate(x), np.concatenate(outputs), np.concatenate(labels), sizes


def assert_own_outputs(batches, teacher, count=20):
    x, outputs, labels, sizes = collected(batches)
    assert len(x) == count
    np.testing.assert_allclose(outputs, teacher.predict(x, verbose=0), atol=1e-6)
    return x, labels, sizes


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_arrays(batch_size, stored, teacher, examples):
    x, y = examples
    dataset = stored.join(examples, batch_size=batch_size, seed=1)
    assert int(dataset.cardinality()) == -(-20 // batch_size)
    first, labels, sizes = assert_own_outputs(dataset, teacher)
    second, _, _ = assert_own_outputs(dataset, teacher)
    assert set(sizes[:-1]) <= {batch_size}
    assert not np.array_equal(first, x), "not shuffled"
    assert not np.array_equal(first, second), "epochs have one order"
    np.testing.assert_array_equal(np.sort(first[:, 0]), np.sort(x[:, 0]))
    # Labels stay with their examples.
    places = [int(np.flatnonzero((x == one).all(axis=-1))[0]) for one in first]
    np.testing.assert_array_equal(labels, y[places])
    again, _, _ = assert_own_outputs(stored.join(examples, batch_size, seed=1), teacher)
    np.testing.assert_array_equal(again, first)


def test_arrays_in_their_order(stored, teacher, examples):
    x, labels, sizes = assert_own_outputs(stored.join(examples, shuffle=False), teacher)
    np.testing.assert_array_equal(x, examples[0])
    np.testing.assert_array_equal(labels, examples[1])
    assert sizes == [20]


def test_many_arrays_in_one_call(teacher, tmp_path):
    x = np.random.default_rng(0).normal(size=(700, 5)).astype("float32")
    stored = StoredTeacher.create(teacher, (x, x[:, 0]), tmp_path / "s", dtype="float32")
    _, labels, sizes = assert_own_outputs(stored.join((x, x[:, 0]), 8), teacher, 700)
    assert sizes == [8] * 87 + [4]
    np.testing.assert_array_equal(np.sort(labels), np.sort(x[:, 0]))


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("size", [3, 20])
def test_batches_without_keys(size, stored, teacher, examples):
    dataset = tf.data.Dataset.from_tensor_slices(examples).batch(size)
    joined = stored.join(dataset)
    assert int(joined.cardinality()) == int(dataset.cardinality())
    for _ in range(2):
        x, _, sizes = assert_own_outputs(joined, teacher)
        np.testing.assert_array_equal(x, examples[0])
        assert set(sizes[:-1]) <= {size}
    # Twice the data, a batch from both ends, and batches of another size.
    assert_own_outputs(stored.join(dataset.unbatch().repeat(2).batch(7)), teacher, 40)
    assert assert_own_outputs(stored.join(dataset, batch_size=5), teacher)[2] == [5] * 4
    assert_own_outputs(joined.unbatch().shuffle(20, seed=0).batch(6), teacher)


def test_keys_in_any_order(stored_by_key, teacher, examples):
    x, y = examples
    examples = tf.data.Dataset.from_tensor_slices((keyed(x), y))
    for dataset, count in (
        (examples.shuffle(20, seed=3).batch(6), 20),
        (examples.filter(lambda x, y: x["key"] % 2 == 0).batch(6), 10),
        (examples.repeat(3).shuffle(60, seed=3).batch(7), 60),
    ):
        assert_own_outputs(stored_by_key.join(dataset), teacher, count)
    part = np.array([4, 17, 4, 2])
    chosen = keras.tree.map_structure(lambda array: array[part], (keyed(x), y))
    assert_own_outputs(stored_by_key.join(chosen), teacher, 4)


def test_a_key_of_another_name(stored_by_key, teacher, examples):
    x, y = examples
    inputs = {"image": x, "number": keyed(x)["key"]}
    assert_own_outputs(stored_by_key.join((inputs, y), key="number"), teacher)
    with pytest.raises(ValueError, match=r"inputs .'image', 'number'.* for key='key'"):
        stored_by_key.join((inputs, y))


@pytest.mark.parametrize("options", [{}, {"workers": 3}, {"workers": 2, "max_queue_size": 3}])
def test_py_datasets(options, stored, stored_by_key, teacher, examples):
    x, y = examples
    for one, inputs in ((stored, x), (stored_by_key, keyed(x))):
        inner = Batches(inputs, y, 6, **options)
        joined = one.join(inner)
        assert isinstance(joined, keras.utils.PyDataset)
        assert (len(joined), joined.num_batches) == (4, 4)
        assert joined.workers == inner.workers
        assert joined.max_queue_size == inner.max_queue_size
        seen, _, _ = assert_own_outputs((joined[number] for number in range(4)), teacher)
        np.testing.assert_array_equal(seen, x)
        joined.on_epoch_end()
        assert inner.epochs == 1


def test_py_datasets_go_to_other_processes(stored_by_key, teacher, examples):
    x, y = examples
    joined = pickle.loads(pickle.dumps(stored_by_key.join(Batches(keyed(x), y, 6))))
    assert_own_outputs((joined[number] for number in range(4)), teacher)


def test_generators(stored, teacher, examples):
    x, y = examples
    assert_own_outputs(stored.join((x[i : i + 6], y[i : i + 6]) for i in range(0, 20, 6)), teacher)


def test_what_comes_beside_the_inputs(stored, examples):
    x, y = examples
    weights = np.linspace(0, 1, 20, dtype="float32")
    for data, count in ((x, 1), ((x,), 1), ((x, y), 2), ((x, y, weights), 3), ((x, None, y), 3)):
        batch = next(iter(stored.join(data, shuffle=False)))
        assert len(batch) == count
    assert batch[1] is None
    _, labels, weight = next(iter(stored.join((x, {"a": y, "b": [y]}, weights), 4, False)))
    np.testing.assert_array_equal(labels["b"][0], y[:4])
    np.testing.assert_array_equal(weight, weights[:4])


def test_structures_of_inputs(examples, tmp_path):
    x, y = examples
    inputs = [keras.Input((5,), name="one"), keras.Input((5,), name="two")]
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Subtract()(inputs)))
    expected = model.predict([x, 2 * x], verbose=0)
    for number, form in enumerate(([x, 2 * x], (x, 2 * x), {"one": x, "two": 2 * x})):
        stored = StoredTeacher.create(model, (form, y), tmp_path / str(number), dtype="float32")
        joined, _ = next(iter(stored.join((form, y), batch_size=20, shuffle=False)))
        np.testing.assert_allclose(joined[TEACHER_OUTPUTS][VALUES], expected, atol=1e-6)
        np.testing.assert_allclose(model(joined[STUDENT_INPUTS]), expected, atol=1e-6)


def test_several_inputs_without_labels(examples, tmp_path):
    x, _ = examples
    stored = StoredTeacher.create(
        lambda x: x[0] - 2 * x[1], ((x, x + 1),), tmp_path / "s", dtype="float32"
    )
    dataset = tf.data.Dataset.from_tensor_slices(((x, x + 1),)).batch(6)
    for data in (dataset, ((x, x + 1),)):
        (joined,) = next(iter(stored.join(data, shuffle=False)))
        one, other = joined[STUDENT_INPUTS]
        np.testing.assert_allclose(joined[TEACHER_OUTPUTS][VALUES], one - 2 * other, atol=1e-6)


def test_the_student_does_not_see_the_part_of_the_teacher(teacher, examples, tmp_path):
    x, y = examples
    small, keys = x[:, :2], np.arange(20)
    both = {"small": small, "large": x, "key": keys}
    stored = StoredTeacher.create(
        teacher, (both, y), tmp_path / "s", key="key", teacher_inputs="large", dtype="float32"
    )
    for inputs in (both, {"small": small, "key": keys}):
        joined, _ = next(iter(stored.join((inputs, y), 20, False)))
        np.testing.assert_array_equal(joined[STUDENT_INPUTS], small)
        np.testing.assert_allclose(
            joined[TEACHER_OUTPUTS][VALUES], teacher.predict(x, verbose=0), atol=1e-6
        )


def test_strings_as_inputs_and_wide_numbers(tmp_path):
    words = np.array(["one", "two", "three", "four"])
    numbers = np.array([1.0, 2.0, 3.0, 5.0])

    def teach(x):
        return tf.stack([tf.cast(tf.strings.length(x["word"]), "float32"), x["number"]], axis=-1)

    inputs = {"word": words, "number": numbers}
    stored = StoredTeacher.create(teach, (inputs,), tmp_path / "s", dtype="float32")
    (joined,) = next(iter(stored.join((inputs,), shuffle=False)))
    assert joined[STUDENT_INPUTS]["word"].numpy().tolist() == [word.encode() for word in words]
    assert joined[STUDENT_INPUTS]["number"].dtype == "float32"
    np.testing.assert_array_equal(joined[TEACHER_OUTPUTS][VALUES][:, 0], [3, 3, 5, 4])
    (joined,) = next(iter(stored.join(tf.data.Dataset.from_tensors((inputs,)))))
    np.testing.assert_array_equal(joined[TEACHER_OUTPUTS][VALUES][:, 1], numbers)


def test_arrays_that_stay_on_the_disk(stored, teacher, examples, tmp_path):
    np.save(tmp_path / "x.npy", examples[0])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert_own_outputs(stored.join((mapped, examples[1]), 6), teacher)


def run(dataset):
    for _ in dataset:
        pass


def test_wrong_pairings_are_noticed(stored, stored_by_key, examples):
    x, y = examples
    batches = tf.data.Dataset.from_tensor_slices((x, y))
    wrong = "differ from those stored for the teacher 'wise_teacher'"
    positions = f"{wrong} at the positions 0, 1, 2.*shuffle after join and not before"
    changed = x.copy()
    changed[13, 2] += 1e-3
    one = f"1 of 20 inputs of a batch that {wrong} at the positions 13\\. .*before any augment"
    for data, message in (
        (stored.join(batches.shuffle(20, seed=0).batch(20)), positions),
        (stored.join((x[::-1], y)), wrong),
        (stored.join((changed, y), shuffle=False), one),
        (stored.join(batches.skip(5).batch(15)), wrong),
        (stored.join((np.float16(x), y)), wrong),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            run(data)
    with pytest.raises(ValueError, match=positions):
        run(stored.join(iter([(x[::-1], y)])))
    inputs = keyed(x)
    exchanged = {**inputs, "image": inputs["image"][::-1]}
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"{wrong} at the keys 7, 10, 13, .*"):
        run(stored_by_key.join((exchanged, y), 20, shuffle=False))
    # Who knows better may say so.
    run(stored.join((changed, y), verify=False))


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("kind", [keras, tf_keras])
def test_a_distiller_says_what_is_wrong_in_one_line(
    kind, stored, stored_by_key, examples, hard_loss
):
    x, y = examples
    student = kind.Sequential([kind.layers.Input((5,)), kind.layers.Dense(3)])
    distiller = keras_kd.Distiller(stored, student)
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    wrong = "^Received 20 of 20 inputs of a batch that differ .*To fix it: .*augmentation.$"
    ways = (distiller.fit, distiller.evaluate, distiller.predict)
    for run_data in ways:
        with pytest.raises(ValueError, match=wrong):
            run_data(stored.join((x[::-1], y)), verbose=0)
    distiller.teacher = stored_by_key
    texts = {"image": x, "key": np.array(list("abcdefghijklmnopqrst"))}
    for run_data in ways:
        with pytest.raises(
            ValueError, match=r"^Received keys of dtype .*kind that .*stored with.$"
        ):
            run_data(stored_by_key.join((texts, y)), verbose=0)


def test_unknown_keys_are_named(stored, stored_by_key, examples, tmp_path):
    x, y = examples
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"without stored outputs.*8, 11, 14"):
        run(stored_by_key.join(({**keyed(x), "key": 3 * np.arange(20) + 8}, y), shuffle=False))
    more = np.concatenate([x, x + 1])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"without stored outputs.*20"):
        run(stored.join((more,), shuffle=False))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"without stored outputs.*20"):
        run(stored.join(tf.data.Dataset.from_tensor_slices(more).batch(30), verify=False))
    with pytest.raises(tf.errors.InvalidArgumentError, match="keys of dtype"):
        run(stored_by_key.join(({"image": x, "key": np.array(list("abcdefghijklmnopqrst"))}, y)))


def test_strings_are_named_as_they_were_given(teacher, examples, tmp_path):
    x, y = examples
    names = np.array([f"{number}.png" for number in range(20)])
    stored = StoredTeacher.create(
        teacher, ({"image": x, "name": names}, y), tmp_path / "n", key="name"
    )
    run(stored.join(({"image": x[::-1], "name": names[::-1]}, y)))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"at the keys '0.png', '1.png'"):
        run(stored.join(({"image": x[::-1], "name": names}, y), shuffle=False))


def test_arguments_that_cannot_be(stored, stored_by_key, examples):
    x, y = examples
    with pytest.raises(ValueError, match="inputs ndarray for key='key'"):
        stored_by_key.join(examples)
    with pytest.raises(ValueError, match="inputs TensorSpec for key='key'"):
        stored_by_key.join(tf.data.Dataset.from_tensor_slices(examples).batch(5))
    with pytest.raises(ValueError, match="key='key' for a store of examples without keys"):
        stored.join((keyed(x), y), key="key")
    with pytest.raises(ValueError, match="batch_size=0"):
        stored.join(examples, batch_size=0)
    with pytest.raises(ValueError, match="batch_size=4 for batches from a Batches"):
        stored.join(Batches(x, y, 5), batch_size=4)
    with pytest.raises(TypeError, match="a dataset of type int"):
        stored.join(3)


def batches_of(x, y, size):
    return tf.data.Dataset.from_tensor_slices((x, y, np.linspace(0.5, 1, 20))).batch(size)


def steps(teacher, student, data, losses, hard_loss, jit_compile=False):
    """The student's weights after two epochs; it is then as it was."""
    begun = student.get_weights()
    keras.utils.set_random_seed(0)
    distiller = keras_kd.Distiller(teacher, student, losses)
    distiller.compile(keras.optimizers.SGD(0.1), hard_loss, jit_compile=jit_compile)
    distiller.fit(data, epochs=2, verbose=0, shuffle=False)
    taught = student.get_weights()
    student.set_weights(begun)
    return begun, taught


def assert_equal_steps(online, stored):
    for one, other in zip(online[1], stored[1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert any(np.abs(one - begun).max() > 1e-3 for begun, one in zip(*online, strict=True))


@pytest.mark.parametrize(
    ("jit_compile", "size"), [(False, 8), pytest.param(True, 20, marks=pytest.mark.slow)]
)
def test_the_student_learns_as_online(
    jit_compile, size, teacher, student, examples, hard_loss, tmp_path
):
    # The student's features are adapted to the teacher's six.
    losses = lambda: [SoftTargets(2.0), Hint("hidden", "hidden")]  # noqa: E731
    stored = StoredTeacher.create(
        teacher, examples, tmp_path / "s", outputs=["logits", "hidden"], dtype="float32"
    )
    data = batches_of(*examples, size)
    online = steps(teacher, student, data, losses(), hard_loss, jit_compile)
    assert_equal_steps(
        online, steps(stored, student, stored.join(data), losses(), hard_loss, jit_compile)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("average", "activation"), [("probabilities", None), ("logits", "softmax")]
)
def test_an_ensemble_teaches_as_online(
    average, activation, dense_model, student, examples, hard_loss, tmp_path
):
    members = [dense_model(seed=seed, activation=activation, name=f"m{seed}") for seed in (3, 4)]
    ensemble = Ensemble(members, [2, 1], average=average)
    stored = StoredTeacher.create(ensemble, examples, tmp_path / "s", dtype="float32")
    data = batches_of(*examples, 8)
    # At another temperature than 1, which the mean of probabilities depends on.
    online = steps(
        Ensemble(members, [2, 1], average=average), student, data, SoftTargets(3.0), hard_loss
    )
    assert_equal_steps(
        online, steps(stored, student, stored.join(data), SoftTargets(3.0), hard_loss)
    )


def test_top_k_of_all_classes_teaches_as_online(teacher, student, examples, hard_loss, tmp_path):
    stored = StoredTeacher.create(
        teacher, examples, tmp_path / "s", top_k=3, dtype="float32", temperatures=(2.0,)
    )
    data = batches_of(*examples, 8)
    online = steps(teacher, student, data, SoftTargets(2.0), hard_loss)
    assert_equal_steps(
        online, steps(stored, student, stored.join(data), SoftTargets(2.0), hard_loss)
    )


@pytest.mark.slow
@pytest.mark.parametrize("form", ["shuffled keys", "PyDataset", "unlabeled", "arrays"])
def test_every_form_teaches_as_online(
    form, stored, stored_by_key, teacher, student, examples, hard_loss
):
    x, y = examples
    order = np.random.default_rng(0).permutation(20)[:15]
    shuffled = keras.tree.map_structure(lambda array: array[order], (keyed(x), y))
    shuffled = tf.data.Dataset.from_tensor_slices(shuffled).repeat(2).batch(8)
    plain = shuffled.map(lambda x, y: (x["image"], y))
    unlabeled = tf.data.Dataset.from_tensor_slices((x,)).batch(8)
    online, joined = {
        "shuffled keys": (plain, stored_by_key.join(shuffled)),
        "PyDataset": (Batches(x, y, 8), stored.join(Batches(x, y, 8, workers=2))),
        "unlabeled": (unlabeled, stored.join((x,), 8, shuffle=False)),
        "arrays": (
            batches_of(x, y, 8).map(lambda x, y, w: (x, y)),
            stored.join(examples, 8, shuffle=False),
        ),
    }[form]
    results = []
    for who, data in ((teacher, online), (stored, joined)):
        begun = student.get_weights()
        distiller = keras_kd.Distiller(
            who, student, SoftTargets(2.0), student_loss_weight=0.0 if form == "unlabeled" else 0.5
        )
        distiller.compile(keras.optimizers.SGD(0.1), None if form == "unlabeled" else hard_loss)
        for _ in range(2):
            distiller.fit(data, verbose=0, shuffle=False)
        results.append((begun, student.get_weights()))
        student.set_weights(begun)
    assert_equal_steps(*results)


def test_a_tf_keras_student_learns_as_online(teacher, examples, hard_loss, tmp_path):
    api = pytest.importorskip("tf_keras")
    api.utils.set_random_seed(0)
    inputs = api.Input((5,))
    hidden = api.layers.Dense(4, activation="tanh", name="hidden")(inputs)
    student = api.Model(inputs, api.layers.Dense(3)(hidden))
    losses = lambda: [SoftTargets(2.0), Hint("hidden", "hidden")]  # noqa: E731
    stored = StoredTeacher.create(
        teacher, examples, tmp_path / "s", outputs=["logits", "hidden"], dtype="float32"
    )
    data = batches_of(*examples, 8)
    online = steps(teacher, student, data, losses(), hard_loss)
    assert_equal_steps(online, steps(stored, student, stored.join(data), losses(), hard_loss))


@pytest.mark.slow
def test_a_pruned_student_learns_as_online(teacher, student, examples, hard_loss, tmp_path):
    stored = StoredTeacher.create(teacher, examples, tmp_path / "s", dtype="float32")
    data = batches_of(*examples, 8)
    results = []
    for who, batches in ((teacher, data), (stored, stored.join(data))):
        pruned = keras_kd.compression.prune(
            student,
            0.5,
            schedule=PolynomialSchedule(begin_step=0, end_step=4, frequency=1),
        )
        results.append(steps(who, pruned, batches, SoftTargets(2.0), hard_loss))
    assert_equal_steps(*results)


def test_float16_until_the_step(teacher, student, examples, hard_loss, tmp_path):
    stored = StoredTeacher.create(teacher, examples, tmp_path / "s")
    joined = stored.join(examples, 8)
    assert joined.element_spec[0][TEACHER_OUTPUTS][VALUES].dtype == "float16"
    assert (
        StoredTeacher(tmp_path / "s")({VALUES: np.ones((1, 3), "float16")}, None).outputs.dtype
        == "float32"
    )
    steps(stored, student, joined, SoftTargets(2.0), hard_loss)


def test_outputs_of_others_are_refused(dense_model, student, examples, hard_loss, tmp_path):
    x, y = examples
    one, other = (
        StoredTeacher.create(
            dense_model(seed=seed, name=f"teacher_{seed}"), x, tmp_path / str(seed)
        )
        for seed in (1, 2)
    )
    distiller = keras_kd.Distiller(one, student)
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    with pytest.raises(ValueError, match=r"outputs from teacher_2 \w+, .*outputs from teacher_1"):
        distiller.fit(other.join((x, y)), verbose=0)
    distiller.fit(one.join((x, y)), verbose=0)


def test_inputs_and_labels_as_two_arguments(stored, examples):
    with pytest.raises(TypeError, match=r"join\(\(x, y\), batch_size=64\)"):
        stored.join(*examples)


def test_keyed_data_without_outputs_are_evaluated_by_their_labels(
    stored_by_key, student, examples, hard_loss
):
    x, y = examples
    distiller = keras_kd.Distiller(stored_by_key, student)
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    unknown = tf.data.Dataset.from_tensor_slices((keyed(x), y)).batch(8)
    distiller.fit(stored_by_key.join(unknown), validation_data=unknown, verbose=0)
    assert "distillation_loss" not in distiller.evaluate(unknown, return_dict=True, verbose=0)
    with pytest.raises(ValueError, match="without the teacher's stored outputs"):
        distiller.fit(unknown, verbose=0)
