"""What is left of a teacher: its outputs, and what a Distiller asks of a teacher."""

import gc
import json
import pickle
import weakref

import keras
import numpy as np
import pytest

import keras_kd
from keras_kd.losses import Hint, SoftTargets
from keras_kd.teachers import StoredTeacher
from keras_kd.teachers.stored.database import RecordWriter


@pytest.fixture
def stored(teacher, examples, tmp_path):
    return StoredTeacher.create(
        teacher, examples, tmp_path / "s", outputs=["logits", "hidden"], dtype="float32"
    )


def test_it_says_what_it_is(stored, teacher):
    assert stored.name == "wise_teacher"
    assert StoredTeacher(stored.path, name="sage").name == "sage"
    assert (len(stored), stored.examples, stored.versions) == (20, 20, 1)
    assert stored.models == stored.learning_models == []
    assert stored.brings_outputs
    assert stored.supports_jit
    said = stored.shapes(None)
    assert (said.outputs.shape, said.outputs.dtype) == ((None, 3), "float32")
    assert said.features["hidden"].shape == (None, 6)
    stored.verify()


def test_the_teacher_is_not_held(dense_model, student, examples, hard_loss, tmp_path):
    teacher = dense_model(units=6, name="short_lived")
    stored = StoredTeacher.create(teacher, examples, tmp_path / "s")
    gone = weakref.ref(teacher)
    del teacher
    keras.backend.clear_session(free_memory=False)
    gc.collect()
    assert gone() is None
    distiller = keras_kd.Distiller(stored, student)
    assert (5, 6) not in [weight.shape for weight in distiller.variables]
    distiller.compile("sgd", hard_loss)
    distiller.fit(stored.join(examples), verbose=0)


def test_layers_that_are_not_stored(stored, student):
    stored.tap(["hidden"])
    with pytest.raises(ValueError, match=r"layer names \['outputs'\].*\['logits', 'hidden', 'out"):
        stored.tap(["outputs"])
    with pytest.raises(ValueError, match=r"has the layers \['hidden'\]"):
        keras_kd.Distiller(stored, student, Hint("outputs", "outputs"))


def test_features_alone(teacher, student, examples, hard_loss, tmp_path):
    stored = StoredTeacher.create(teacher, examples, tmp_path / "f", outputs="hidden")
    assert list(stored.read([0])) == ["hidden"]
    distiller = keras_kd.Distiller(stored, student, Hint("hidden", "hidden"))
    distiller.compile("sgd", hard_loss)
    distiller.fit(stored.join(examples), verbose=0)


def test_shapes_that_do_not_fit(stored, dense_model):
    with pytest.raises(ValueError, match=r"\(None, 3\) from the teacher and \(None, 4\)"):
        keras_kd.Distiller(stored, dense_model(4))


def test_it_can_be_of_one_teacher_only(stored, teacher, dense_model):
    assert StoredTeacher(stored.path, teacher=teacher).examples == 20
    with pytest.raises(ValueError, match=r"a teacher with the weights \w+, for the store .* of "):
        StoredTeacher(stored.path, teacher=dense_model(units=6, seed=5))


def test_reading(stored, teacher, examples):
    expected = teacher.predict(examples[0], verbose=0)
    np.testing.assert_allclose(stored.read([3, 3, 19])["logits"], expected[[3, 3, 19]], atol=1e-6)
    np.testing.assert_allclose(stored.read(7)["logits"], expected[[7]], atol=1e-6)
    with pytest.raises(ValueError, match=r"without stored outputs.*20"):
        stored.read([20])
    with pytest.raises(ValueError, match=r"without stored outputs.*-1"):
        stored.read([-1])


def test_no_store(tmp_path, teacher, examples):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        StoredTeacher(tmp_path / "nowhere")


def test_descriptions_are_not_believed(stored):
    """Whoever writes a store can give it the right checksums, whatever it says."""
    original = stored._records.description

    def changed(change, has_keys=False):
        config = json.loads(json.dumps(original))
        change(config)
        path = stored.path.with_name("changed")
        path.unlink(missing_ok=True)
        with RecordWriter(path, config, 36, has_keys=has_keys) as writer:
            writer.append(np.zeros(1, "int64"), np.zeros(1, "uint16"), np.zeros(36, "u1")[:1])
            writer.finish()
        with pytest.raises(ValueError, match="Received"):
            StoredTeacher(path).read([0])

    changed(lambda config: config.clear())
    for name in original:
        changed(lambda config, name=name: config.pop(name))
        changed(lambda config, name=name: config.update({name: [[]]}))
    changed(lambda config: None)
    changed(lambda config: None, has_keys=True)
    changed(lambda config: config.update(key_kind="integer", key_name="key"))
    assert len(StoredTeacher(stored.path)) == 20


def test_damage_is_named(stored, teacher, examples):
    content = stored.path.read_bytes()
    value = stored.read([2])["logits"].tobytes()
    assert value in content
    stored.path.write_bytes(content.replace(value, value[::-1]))
    damaged = StoredTeacher(stored.path)
    with pytest.raises(ValueError, match=r"/s', which is damaged: record 2 is not"):
        damaged.verify()
    with pytest.raises(ValueError, match="which is damaged: record 2"):
        damaged.read([2])
    expected = teacher.predict(examples[0], verbose=0)
    np.testing.assert_allclose(damaged.read([3])["logits"], expected[[3]], atol=1e-6)


@pytest.mark.parametrize("save_teacher", [True, False])
def test_a_distiller_is_saved_with_the_path(
    save_teacher, stored, student, examples, hard_loss, tmp_path
):
    distiller = keras_kd.Distiller(
        stored, student, [SoftTargets(2.0), Hint("hidden", "hidden")], save_teacher=save_teacher
    )
    distiller.compile(keras.optimizers.Adam(0.01), hard_loss)
    data = stored.join(examples, 5, shuffle=False)
    distiller.fit(data, verbose=0)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    if save_teacher:
        assert isinstance(loaded.teacher, StoredTeacher)
        assert loaded.teacher.path == stored.path
    else:
        assert loaded.teacher is None
        loaded.teacher = stored
    distiller.fit(data, verbose=0)
    loaded.fit(stored.join(examples, 5, shuffle=False), verbose=0)
    for one, other in zip(loaded.get_weights(), distiller.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_another_student_learns_of_it_too(stored, student, dense_model, examples, hard_loss):
    distiller = keras_kd.Distiller(stored, student)
    distiller.compile("sgd", hard_loss)
    data = stored.join(examples, 5)
    distiller.fit(data, verbose=0)
    other = distiller.with_student(dense_model(units=7, seed=8))
    other.fit(data, verbose=0)
    assert other.teacher is stored


def test_training_on_plain_data_is_refused(stored, student, examples, hard_loss):
    distiller = keras_kd.Distiller(stored, student)
    distiller.compile("sgd", hard_loss)
    with pytest.raises(ValueError, match=r"without the teacher's stored outputs.*join"):
        distiller.fit(*examples, verbose=0)


def test_a_part_is_kept_as_a_part(stored, teacher, examples, tmp_path):
    def ends_early():
        yield (examples[0][:8],)
        raise RuntimeError("the end")

    with pytest.raises(RuntimeError, match="the end"):
        StoredTeacher.create(teacher, ends_early(), tmp_path / "p")
    part = StoredTeacher(tmp_path / "p", partial=True)
    again = StoredTeacher.from_config(part.get_config())
    assert (len(again), again.name) == (8, "wise_teacher")
    joined, _ = next(iter(part.join((examples[0][:8], examples[1][:8]))))
    assert joined["student_inputs"].shape == (8, 5)


def test_the_working_directory_can_change(
    stored, student, examples, hard_loss, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    relative = StoredTeacher(stored.path.name)
    assert relative.path == stored.path
    distiller = keras_kd.Distiller(relative, student)
    distiller.compile("sgd", hard_loss)
    distiller.fit(relative.join(examples), verbose=0)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    distiller.save("distiller.keras")
    loaded = keras.models.load_model("distiller.keras")
    assert loaded.teacher.path == stored.path
    again = pickle.loads(pickle.dumps(relative))
    np.testing.assert_array_equal(again.read([3])["logits"], stored.read([3])["logits"])
