import json
import resource
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest

from keras_kd._model_files import load_model
from keras_kd._model_files.stored import is_of_keras_2


@pytest.fixture
def path(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


@pytest.fixture
def hdf5(model, tmp_path):
    model.save(tmp_path / "model.h5")
    return tmp_path / "model.h5"


def changed_config(path, change):
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    change(config)
    return {"config.json": json.dumps(config)}


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"config.json": b"{"}, "Expecting property name"),
        ({"config.json": b"[]"}, "which is refused"),
        ({"config.json": None}, "no config.json"),
        ({"model.weights.h5": None}, "no config.json or no model.weights.h5"),
        ({"model.weights.h5": b"\x89HDF\r\n\x1a\n"}, "which is refused"),
        ({"../escaped": b""}, "would escape"),
        ({"assets/../../escaped": b""}, "would escape"),
        ({"/tmp/escaped": b""}, "would escape"),
        ({"C:\\escaped": b""}, "would escape"),
    ],
)
def test_members(members, reason, path, rewritten, tmp_path):
    before = sorted(tmp_path.parent.rglob("*"))
    file = rewritten(path, members)
    with pytest.raises(ValueError, match=reason):
        load_model(file)
    assert sorted(tmp_path.parent.rglob("*")) == sorted([*before, file])


def test_two_members_of_one_name(path):
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("config.json", b"{}")
    with pytest.raises(ValueError, match="two members of one name"):
        load_model(path)


def test_a_member_that_is_far_larger_than_what_is_stored(path, rewritten):
    zeros = bytes(70 * 1024 * 1024)
    file = rewritten(path, {"model.weights.h5": zeros}, zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 1_000_000
    with pytest.raises(ValueError, match=r"'model.weights.h5' declares 73400320 bytes"):
        load_model(file)


def test_compressed_archives_are_fine(path, rewritten):
    assert load_model(rewritten(path, {}, zipfile.ZIP_DEFLATED)).output_shape == (None, 3)


def test_a_layer_of_a_trillion_units_is_refused_before_it_is_built(path, rewritten):
    def enlarge(config):
        config["config"]["layers"][1]["config"]["units"] = 10**12

    file = rewritten(path, changed_config(path, enlarge))
    with pytest.raises(ValueError, match=r"the model declares 8000000000000 bytes"):
        load_model(file)


def test_an_hdf5_of_a_trillion_units(hdf5):
    with h5py.File(hdf5, "a") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][1]["config"]["units"] = 10**12
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(ValueError, match=r"the model declares 8000000000000 bytes"):
        load_model(hdf5)


def test_outputs_that_no_device_holds(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.RepeatVector(10**10)])
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"'repeat_vector.*' returns 30000000000 numbers"):
        load_model(tmp_path / "model.keras")


def inside(x):
    inner = keras.Input((3,))
    mean = keras.ops.mean(keras.ops.tile(inner, (1, 10**9)), axis=1, keepdims=True)
    return keras.Model(inner, mean)(x)


def alive(x):
    """Each takes a third of a gibibyte, and all wait for the last of them."""
    return keras.layers.Add()([keras.ops.repeat(x, 3 * 10**7, axis=1) for _ in range(30)])


GIANTS = {
    "Tile": lambda x: keras.ops.mean(keras.ops.tile(x, (1, 10**9)), axis=1, keepdims=True),
    "Repeat": lambda x: keras.ops.mean(keras.ops.repeat(x, 10**9, axis=1), axis=1, keepdims=True),
    "broadcast_to": lambda x: keras.ops.broadcast_to(keras.ops.expand_dims(x, 1), (1, 10**9, 3)),
    "one_hot": lambda x: keras.ops.one_hot(keras.ops.cast(x, "int32"), 10**9),
    "pad": lambda x: keras.ops.mean(keras.ops.pad(x, ((0, 0), (0, 10**10))), axis=1),
    "RepeatVector": lambda x: keras.layers.GlobalAveragePooling1D()(
        keras.layers.RepeatVector(10**10)(x)
    ),
    "ZeroPadding2D": lambda x: keras.layers.GlobalAveragePooling2D()(
        keras.layers.ZeroPadding2D(20_000)(keras.layers.Reshape((1, 1, 3))(x))
    ),
    "UpSampling2D": lambda x: keras.layers.GlobalAveragePooling2D()(
        keras.layers.UpSampling2D(40_000)(keras.layers.Reshape((1, 1, 3))(x))
    ),
    "CategoryEncoding": lambda x: keras.layers.CategoryEncoding(10**10)(x),
    "a model inside": inside,
    "many at one time": alive,
}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("kind", GIANTS)
def test_results_that_fill_the_memory(kind, suffix, tmp_path):
    """Whatever makes them, layers or operations of `keras.ops`, and small ones if they are many."""
    inputs = keras.Input((3,))
    keras.Model(inputs, GIANTS[kind](inputs)).save(tmp_path / f"model{suffix}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # An .h5 does not name the module of operations, and Keras does not find them.
    reason = "numbers|bytes at one time" if suffix == ".keras" else "numbers|bytes|finds in no .h5"
    with pytest.raises(ValueError, match=reason):
        load_model(tmp_path / f"model{suffix}")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 500_000


def test_results_that_go_before_the_next_ones_come(tmp_path):
    """400 MB ten times, one after the other."""
    x = inputs = keras.Input((3,))
    for _ in range(10):
        x = keras.ops.mean(keras.ops.repeat(keras.ops.expand_dims(x, 1), 10**7, axis=1), axis=1)
    keras.Model(inputs, x).save(tmp_path / "model.keras")
    assert load_model(tmp_path / "model.keras").output_shape == (None, 3)


def test_a_layer_that_is_built_without_inputs(path, rewritten):
    """Normalization fills arrays of the size that the file says it was built with."""

    def enlarge(config):
        layer = keras.layers.Normalization(mean=0.0, variance=1.0)
        layer.build((None, 3))
        layer = keras.saving.serialize_keras_object(layer)
        layer["build_config"]["input_shape"] = [None, 10**11]
        config["config"]["layers"].append(layer)

    file = rewritten(path, changed_config(path, enlarge))
    with pytest.raises(ValueError, match="its input_shape of 1 sizes has more numbers than"):
        load_model(file)


def array(value, dtype):
    return {"class_name": "__numpy__", "config": {"value": value, "dtype": dtype}}


def layer_on(name, settings, *arguments, **more):
    """A layer in a config, called on something that is no part of the model."""
    nodes = [{"args": list(arguments), "kwargs": {}}] if arguments else []
    config = {"name": "more", **settings}
    layer = {"module": "keras.layers", "class_name": name, "registered_name": None, "name": "more"}
    return {**layer, "config": config, "inbound_nodes": nodes, **more}


BUILT = {"build_config": {"input_shape": [None, 4]}}
UNREACHED = {
    "weights": layer_on("Dense", {"units": 50_000_000}, **BUILT),
    "weights of words": layer_on("Embedding", {"input_dim": 10**8, "output_dim": 4}, **BUILT),
    "a call on a constant": layer_on("RepeatVector", {"n": 10**8}, array([[0.0]], "float32")),
    "an array as a type": layer_on("Identity", {}, array(0, "(20000,20000)f4")),
    "text of any length": layer_on("Identity", {}, array("a", "U300000000")),
    "a long word and many": layer_on(
        "StringLookup", {"vocabulary": ["x" * 10**6, *map(str, range(300))]}
    ),
    "many unknown words": layer_on("StringLookup", {"num_oov_indices": 10**8}),
    "a shape of digits": layer_on("Dense", {"units": 3, "a_shape": [10**4000] * 500}),
}


@pytest.mark.parametrize("kind", UNREACHED)
def test_what_the_model_does_not_reach_counts_too(kind, tmp_path, rewritten):
    inputs = keras.Input((2,))
    keras.Model(inputs, keras.layers.Dense(3)(inputs)).save(tmp_path / "model.keras")

    def add(config):
        config["config"]["layers"].append(UNREACHED[kind])

    file = rewritten(tmp_path / "model.keras", changed_config(tmp_path / "model.keras", add))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="which is refused"):
        load_model(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 300_000


def test_words_in_a_file_of_the_archive_count_too(path, rewritten):
    words = b"x" * 10**6 + b"\n" + b"a\n" * 300
    file = rewritten(path, {"assets/layers/lookup/vocabulary.txt": words}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"vocabulary.txt declares \d+ bytes"):
        load_model(file)


def test_what_compresses_twice_is_counted_once(path, rewritten, tmp_path):
    with zipfile.ZipFile(path) as archive:
        (tmp_path / "weights.h5").write_bytes(archive.read("model.weights.h5"))
    with h5py.File(tmp_path / "weights.h5", "a") as file:
        # Each of the two is below a hundred times.
        data = np.tile(np.random.default_rng(0).integers(0, 9, 1000, "int8"), 80_000)
        file.create_dataset("more", data=data, chunks=(100_000,), compression="gzip")
    weights = (tmp_path / "weights.h5").read_bytes()
    file = rewritten(path, {"model.weights.h5": weights}, zipfile.ZIP_DEFLATED)
    assert 100 * file.stat().st_size < 80_000_000
    with pytest.raises(ValueError, match=r"its weights declares 800\d+ bytes"):
        load_model(file)


def test_values_of_any_size_in_hdf5(hdf5):
    with h5py.File(hdf5, "a") as file:
        texts = ["a" * 1000] * 3
        file["model_weights"].create_dataset("texts", data=texts, dtype=h5py.string_dtype())
    with pytest.raises(ValueError, match="'model_weights/texts' holds values of any size"):
        load_model(hdf5)


@pytest.mark.parametrize("name", ["config.json", "metadata.json"])
def test_descriptions_that_are_far_too_large(name, path, rewritten):
    file = rewritten(path, {name: b" " * 66_000_000}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=f"its {name} has 66000000 bytes, more than 16777216"):
        load_model(file)
    file = rewritten(path, {name: b" " * 2_000_000}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=f"its {name} declares 2000000 bytes"):
        load_model(file)


def test_models_of_zeros_are_read(tmp_path):
    """Keras does not compress: what is zero takes as many bytes as anything else."""
    layers = [keras.Input((2000,)), keras.layers.Dense(9_000, kernel_initializer="zeros")]
    model = keras.Sequential(layers)
    for name in ("model.keras", "model.h5"):
        model.save(tmp_path / name)
        assert load_model(tmp_path / name).count_params() == 18_009_000


def test_the_rehearsal_leaves_no_trace(path):
    keras.backend.clear_session()
    load_model(path)
    assert keras.layers.Dense(1).name == "dense"


def test_a_dataset_that_is_far_larger_than_the_file(hdf5):
    with h5py.File(hdf5, "a") as file:
        file["model_weights"].create_dataset("giant", (10**12,), "float32", chunks=(1000,))
    with pytest.raises(ValueError, match="its weights declares 40000000000"):
        load_model(hdf5)


@pytest.mark.parametrize("link", [h5py.ExternalLink("/etc/passwd", "/a"), h5py.SoftLink("/a")])
def test_links_in_hdf5(hdf5, link):
    with h5py.File(hdf5, "a") as file:
        file["model_weights"]["elsewhere"] = link
    with pytest.raises(ValueError, match="its 'model_weights/elsewhere' is a link"):
        load_model(hdf5)


def test_a_dataset_in_another_file(hdf5, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(100))
    with h5py.File(hdf5, "a") as file:
        file["model_weights"].create_dataset(
            "secret", (25,), "float32", external=[(str(tmp_path / "secret"), 0, 100)]
        )
    with pytest.raises(ValueError, match="is in another file"):
        load_model(hdf5)


def test_weights_alone(model, tmp_path):
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(ValueError, match="weights but no model"):
        load_model(tmp_path / "model.weights.h5")


KERAS_2 = """
import sys
import tf_keras
from tf_keras import layers

dense = tf_keras.Sequential([tf_keras.Input((2,)), layers.Dense(3, "relu")])
dense.save(f"{sys.argv[1]}/dense.h5")
dense.save(f"{sys.argv[1]}/dense.keras")
hard = tf_keras.Sequential([tf_keras.Input((2,)), layers.Dense(3, "hard_sigmoid")])
hard.save(f"{sys.argv[1]}/hard.h5")
hard.save(f"{sys.argv[1]}/hard.keras")
lstm = tf_keras.Sequential([tf_keras.Input((4, 2)), layers.LSTM(3)])
lstm.save(f"{sys.argv[1]}/lstm.h5")
lstm.export(f"{sys.argv[1]}/lstm")
"""


@pytest.fixture(scope="module")
def keras_2(tmp_path_factory):
    """Files that Keras 2 wrote, in a process of its own."""
    directory = tmp_path_factory.mktemp("keras_2")
    subprocess.run([sys.executable, "-c", KERAS_2, str(directory)], check=True, capture_output=True)
    return directory


@pytest.mark.slow
def test_models_of_keras_2(keras_2):
    """What Keras 3 reads as it was meant, and where the user is told what to do instead."""
    assert load_model(keras_2 / "dense.h5").output_shape == (None, 3)
    assert load_model(keras_2 / "dense.keras").output_shape == (None, 3)
    assert load_model(keras_2 / "lstm").output_shape == (None, 3)
    assert load_model(keras_2 / "lstm.h5").output_shape == (None, 3)
    for name in ("hard.keras", "hard.h5"):
        assert is_of_keras_2(keras_2 / name)
        with pytest.raises(ValueError, match=r"of Keras 2: .*write a SavedModel with model.export"):
            load_model(keras_2 / name)


@pytest.mark.parametrize("seed", range(30))
def test_damage_is_refused_or_harmless(seed, path, hdf5):
    random = np.random.default_rng(seed)
    file = (path, hdf5)[seed % 2]
    content = bytearray(file.read_bytes())
    for place in random.integers(0, len(content), 12):
        content[place] = random.integers(0, 256)
    file.write_bytes(content)
    try:
        message = str(load_model(file).output_shape)
    except ValueError as error:
        message = str(error)
    assert message
    assert "\n" not in message
