import keras
import numpy as np
import pytest
import tf_keras
from keras import layers

from keras_kd.compression import load_pruned, prune, sparsity, to_tf_keras


def dense():
    return keras.Sequential([keras.Input((8,)), layers.Dense(4, name="dense")])


def fit(pruned):
    pruned.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
    callbacks = pruned.training_callbacks()
    pruned.fit(x, x[:, :4], batch_size=4, verbose=0, callbacks=callbacks)


@pytest.mark.parametrize("name", ["student.keras", "student.h5"])
def test_a_student_goes_on_where_it_was_saved(tmp_path, name):
    pruned = prune(dense(), m_by_n=(2, 4), end_step=8, power=1)
    with pytest.warns(UserWarning, match="less sparse than was asked for"):
        fit(pruned)
    # Half of the way to two of four.
    assert sparsity(pruned).overall == 0.25
    pruned.save(tmp_path / name)
    loaded = load_pruned(tmp_path / name)
    assert loaded.layers[-1].pruning_step == 4
    for one, other in zip(pruned.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    fit(loaded)
    assert sparsity(loaded).overall == 0.5
    kernel = loaded.layers[-1].layer.kernel.numpy()
    assert ((kernel.T.reshape(4, 2, 4) == 0).sum(-1) == 2).all()


def test_a_student_that_was_saved_before_training_has_an_open_schedule(tmp_path):
    prune(dense(), 0.5).save(tmp_path / "student.keras")
    loaded = load_pruned(tmp_path / "student.keras")
    assert loaded.layers[-1].pruning_schedule.is_open
    fit(loaded)
    assert sparsity(loaded).overall == 0.5


def test_layers_of_users_are_named_on_loading(tmp_path):
    class Own(tf_keras.layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight("kernel", (shape[-1], 4))

        def call(self, inputs):
            return inputs @ self.kernel

        def get_prunable_weights(self):
            return [self.kernel]

    student = tf_keras.Sequential([tf_keras.Input((8,)), Own(name="own")])
    pruned = prune(student, 0.5)
    fit(pruned)
    pruned.save(tmp_path / "student.keras")
    loaded = load_pruned(tmp_path / "student.keras", {"Own": Own})
    assert sparsity(loaded).layers == {"own": 0.5}


def test_a_file_without_a_pruned_layer(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.keras', where there is nothing"):
        load_pruned(tmp_path / "nothing.keras")
    path = tmp_path / "plain.keras"
    to_tf_keras(dense()).save(path)
    with pytest.raises(ValueError, match=r"without a pruned layer.*tf_keras.models.load_model"):
        load_pruned(path)
