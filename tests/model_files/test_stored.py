"""What files say of models, held against the models themselves."""

import json
import subprocess
import sys
import zipfile
from contextlib import suppress

import keras
import numpy as np
import pytest

from keras_kd._model_files import check_path, stored

layers = keras.layers


@keras.saving.register_keras_serializable("tests")
class Own(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.others = layers.Dense(3), [layers.Dense(2), layers.Dense(5)]

    def call(self, inputs):
        return self.others[1](self.others[0](self.first(inputs)))


def functional():
    image = keras.Input((6, 6, 1), name="acc-x")
    length = keras.Input((None, 2), name="steps", dtype="float16")
    inner = keras.Sequential(
        [keras.Input((6, 6, 1)), layers.Flatten(), layers.Dense(5)], name="inner"
    )
    both = layers.Concatenate()(
        [inner(layers.BatchNormalization()(image)), layers.Bidirectional(layers.LSTM(4))(length)]
    )
    outputs = {"a": layers.Dense(3, name="kind")(layers.Dropout(0.5)(both)), "b": both}
    return keras.Model({"acc-x": image, "steps": length}, outputs, name="two")


def sequential():
    model = keras.Sequential([layers.Dense(4), layers.Dropout(0.1), layers.Dense(2)], name="plain")
    model(np.zeros((1, 3)))
    # The optimizer stores twice as many numbers as the model.
    model.compile("adam", "mse")
    model.fit(np.zeros((4, 3)), np.zeros((4, 2)), verbose=0)
    return model


def own():
    model = Own(name="own")
    model(np.zeros((2, 4)))
    return model


@pytest.fixture(scope="module")
def models():
    return {"functional": functional(), "sequential": sequential(), "own": own()}


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        ("functional", ".keras"),
        ("functional", ".h5"),
        ("sequential", ".keras"),
        ("sequential", ".h5"),
        ("own", ".keras"),
    ],
)
def test_parameters_inputs_and_layers_are_those_of_the_model(models, kind, suffix, tmp_path):
    model, path = models[kind], tmp_path / f"model{suffix}"
    model.save(path)
    said = stored.describe(path)
    assert said.parameters == model.count_params()
    assert (said.name, said.keras_version, said.size) == (
        model.name,
        keras.__version__,
        path.stat().st_size,
    )
    if kind == "own":
        assert [tensor.shape for tensor in said.inputs] == [(2, 4)]
        return
    assert {layer.name: layer.parameters for layer in said.layers if layer.parameters} == {
        layer.name: layer.count_params() for layer in model.layers if layer.count_params()
    }
    assert {tensor.shape for tensor in said.inputs} == {
        tuple(tensor.shape) for tensor in model.inputs
    }
    if kind == "functional":
        assert [tensor.name for tensor in said.inputs] == ["acc-x", "steps"]
        assert [tensor.dtype for tensor in said.inputs] == ["float32", "float16"]
        assert said.outputs[0] == "kind"
    assert json.loads(json.dumps(said.to_dict())) == said.to_dict()
    assert f"parameters: {model.count_params():,}" in str(said)


def test_a_file_of_keras_2(tmp_path):
    import tf_keras

    model = tf_keras.Sequential(
        [
            tf_keras.layers.DepthwiseConv2D(3, input_shape=(8, 8, 2), name="deep"),
            tf_keras.layers.Flatten(),
            tf_keras.layers.Dense(4),
        ]
    )
    model.compile("adam", "mse")
    model.fit(np.zeros((2, 8, 8, 2)), np.zeros((2, 4)), verbose=0)
    model.save(tmp_path / "old.h5", save_format="h5")
    said = stored.describe(tmp_path / "old.h5")
    assert said.parameters == model.count_params()
    assert [tensor.shape for tensor in said.inputs] == [(None, 8, 8, 2)]
    assert {layer.kind: layer.parameters for layer in said.layers}["DepthwiseConv2D"] == 20
    model.save(tmp_path / "old.keras")
    assert stored.describe(tmp_path / "old.keras").parameters == model.count_params()


def test_many_layers_are_counted(tmp_path):
    model = keras.Sequential([keras.Input((2,)), *(layers.Dense(2) for _ in range(70))])
    model.save(tmp_path / "deep.keras")
    said = stored.describe(tmp_path / "deep.keras")
    assert len(said.layers) == 71
    assert "and 11 more (Dense 11)" in str(said)


@pytest.mark.parametrize(
    "config",
    [
        b"[]",
        b"{}",
        b'{"config": 7}',
        b'{"config": {"layers": [7, {}], "output_layers": 7}}',
        b'{"config": {"layers": [{"class_name": "InputLayer", "config": {"batch_shape": 7}}]}}',
        b'{"config": {"layers": 7}}',
        b'{"build_config": {"input_shape": [7, [8]]}, "config": {}}',
        b"[" * 100_000,
    ],
    ids=range(8),
)
def test_configs_that_say_anything(models, config, tmp_path):
    good, bad = tmp_path / "good.keras", tmp_path / "bad.keras"
    models["sequential"].save(good)
    with zipfile.ZipFile(good) as archive, zipfile.ZipFile(bad, "w") as copy:
        for name in archive.namelist():
            copy.writestr(name, config if name == "config.json" else archive.read(name))
    with suppress(ValueError):
        assert str(stored.describe(bad))
        return
    with pytest.raises(ValueError, match=r"^Received the file [^\n]*\.$"):
        stored.describe(bad)


def test_a_path_that_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="the path 'missing"):
        check_path(tmp_path.relative_to(tmp_path) / "missing.keras")
    with pytest.raises(ValueError, match="the directory"):
        check_path(tmp_path)


def test_no_keras_is_imported(models, tmp_path):
    models["functional"].save(tmp_path / "model.keras")
    program = (
        "import sys; from pathlib import Path; sys.argv = ['keras-kd']; "
        "from keras_kd._model_files import stored; "
        f"print(stored.describe(Path({str(tmp_path / 'model.keras')!r}))); "
        "sys.exit('keras' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
