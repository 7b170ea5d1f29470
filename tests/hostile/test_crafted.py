"""Files made to do harm: to run code, to write elsewhere, to fill the memory."""

import contextlib
import io
import json
import os
import pickle
import random
import shutil
import sqlite3
import struct
import zipfile

import h5py
import keras
import numpy as np
import pytest

from keras_kd import teachers
from keras_kd.teachers.stored.database import Records, RecordWriter

MARKER = "the_code_has_run"


def marking(x):
    """What a Lambda layer would do: it says that it was called, where it was called."""
    open("the_code_has_run", "w").close()
    return x


class Marking:
    """An object whose unpickling writes a file."""

    def __reduce__(self):
        return open, (MARKER, "w")


def with_member(content, name, data):
    """A zip archive with one member more, or another in the place of one."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.namelist():
            if member != name:
                new.writestr(member, old.read(member))
        new.writestr(name, data, zipfile.ZIP_DEFLATED)
    return target.getvalue()


def with_config(content, change):
    """A .keras whose config has been changed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        config = json.loads(archive.read("config.json"))
    change(config)
    return with_member(content, "config.json", json.dumps(config))


def code(good, directory, suffix):
    path = directory / f"code{suffix}"
    keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Lambda(marking)]).save(path)
    return path.read_bytes()


def giant_layer(good, directory):
    def change(config):
        config["config"]["layers"][1]["config"]["filters"] = 2**40

    return with_config((good / "model.keras").read_bytes(), change)


def giant_shape_in_h5(good, directory):
    path = directory / "giant.h5"
    path.write_bytes((good / "model.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        group = file["model_weights"]["conv2d" if "conv2d" in file["model_weights"] else "kind"]
        group.create_dataset("giant", (2**40,), "float32", chunks=(1024,))
        group.attrs["weight_names"] = ["giant", "giant"]
    return path.read_bytes()


def many_assets(good, directory):
    path = directory / "assets.keras"
    path.write_bytes((good / "model.keras").read_bytes())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for number in range(20):
            archive.writestr(f"assets/{number}", bytes(4_000_000))
    return path.read_bytes()


def two_expansions(good, directory):
    """Zeros that HDF5 has compressed, compressed once more."""
    path = directory / "zeros.h5"
    with zipfile.ZipFile(good / "model.keras") as archive:
        path.write_bytes(archive.read("model.weights.h5"))
    with h5py.File(path, "a") as file:
        options = {"chunks": (1 << 20,), "compression": "gzip"}
        file.create_dataset("zeros", data=np.zeros(1 << 25, "float32"), **options)
    return with_member((good / "model.keras").read_bytes(), "model.weights.h5", path.read_bytes())


def giant_config(good, directory):
    return with_config(
        (good / "model.keras").read_bytes(), lambda config: config.update(more=[[]] * 16_000_000)
    )


def giant_results(good, directory):
    """No layer returns more than some numbers; what lies between them is an operation."""
    path = directory / "giant.keras"
    inputs = keras.Input((6, 6, 3), name="image")
    vector = keras.layers.Flatten()(inputs)
    repeated = keras.ops.repeat(vector, 10**7, axis=1)
    keras.Model(inputs, keras.layers.Dense(3)(vector * keras.ops.mean(repeated))).save(path)
    return path.read_bytes()


def function_from_a_module(good, directory):
    def change(config):
        config["config"]["layers"][1]["config"]["activation"] = {
            "module": "os",
            "class_name": "function",
            "config": "abort",
            "registered_name": "function",
        }

    return with_config((good / "model.keras").read_bytes(), change)


def drawing(good, directory):
    """A layer that draws a constant picture into a file when the model is built."""

    def change(config):
        function = {
            "module": "keras.visualization",
            "class_name": "function",
            "config": "plot_image_gallery",
            "registered_name": "plot_image_gallery",
        }
        image = {"class_name": "__numpy__", "config": {"value": [[[[0.5]]]], "dtype": "float32"}}
        config["config"]["layers"].append(
            {
                "module": "keras.layers",
                "class_name": "Lambda",
                "config": {
                    "name": "drawn",
                    "function": function,
                    "arguments": {"path": "the_code_has_run"},
                },
                "registered_name": None,
                "name": "drawn",
                "inbound_nodes": [{"args": [image], "kwargs": {}}],
            }
        )

    keras.Model(*(2 * [keras.Input((6, 6, 3))])).save(directory / "drawing.keras")
    return with_config((directory / "drawing.keras").read_bytes(), change)


def npy_header(shape, dtype="<f4"):
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


def saved(array):
    target = io.BytesIO()
    np.save(target, array)
    return target.getvalue()


def zipped(name, data, count=1):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for _ in range(count):
            archive.writestr(name, data, zipfile.ZIP_DEFLATED)
    return target.getvalue()


def with_zeros(count, size):
    target = io.BytesIO()
    np.savez_compressed(target, **{f"x{i}": np.zeros(size, np.uint8) for i in range(count)})
    return target.getvalue()


MODELS = {
    "code in .keras": ("m.keras", lambda good, to: code(good, to, ".keras")),
    "code in .h5": ("m.h5", lambda good, to: code(good, to, ".h5")),
    "a function of another module": ("m.keras", function_from_a_module),
    "a function of Keras that writes": ("m.keras", drawing),
    "a giant layer": ("m.keras", giant_layer),
    "a giant shape": ("m.h5", giant_shape_in_h5),
    "a member that escapes": (
        "m.keras",
        lambda good, to: with_member((good / "model.keras").read_bytes(), "../escaped", b"x"),
    ),
    "a member at the root": (
        "m.keras",
        lambda good, to: with_member((good / "model.keras").read_bytes(), "/escaped", b"x"),
    ),
    "a bomb": (
        "m.keras",
        lambda good, to: with_member(
            (good / "model.keras").read_bytes(), "assets/bomb", bytes(200_000_000)
        ),
    ),
    "many assets": ("m.keras", many_assets),
    "two expansions": ("m.keras", two_expansions),
    "a giant config": ("m.keras", giant_config),
    "giant results": ("m.keras", giant_results),
    "a .tflite called .keras": ("m.keras", lambda good, to: (good / "model.tflite").read_bytes()),
    "nothing": ("m.keras", lambda good, to: b""),
}
DATA = {
    "pickled objects": ("d.npy", lambda: saved(np.array([Marking()], dtype=object))),
    "a pickle": ("d.npy", lambda: pickle.dumps(Marking())),
    "a giant shape": ("d.npy", lambda: npy_header((2**40, 6, 6, 3))),
    "a shape that overflows": ("d.npy", lambda: npy_header((2**62, 2**62))),
    "a negative shape": ("d.npy", lambda: npy_header((-1, 6, 6, 3))),
    "words": ("d.npy", lambda: saved(np.full((12, 6, 6, 3), "a"))),
    "complex numbers": ("d.npy", lambda: saved(np.zeros((12, 6, 6, 3), complex))),
    "times": ("d.npy", lambda: saved(np.zeros((12, 6, 6, 3), "datetime64[s]"))),
    "NaN": ("d.npy", lambda: saved(np.full((12, 6, 6, 3), np.nan, np.float32))),
    "infinity": ("d.npy", lambda: saved(np.full((12, 6, 6, 3), np.inf, np.float32))),
    "another shape": ("d.npy", lambda: saved(np.zeros((12, 5, 6, 3), np.float32))),
    "no example": ("d.npy", lambda: saved(np.zeros((0, 6, 6, 3), np.float32))),
    "one number": ("d.npy", lambda: saved(np.float32(1))),
    "another name": ("d.npz", lambda: zipped("words.npy", saved(np.zeros((12, 6, 6, 3), "f4")))),
    "no array": ("d.npz", lambda: zipped("image.txt", b"hello")),
    "a bomb": ("d.npz", lambda: zipped("image.npy", npy_header((10**8,)) + bytes(4 * 10**8))),
    "many members": ("d.npz", lambda: with_zeros(40, 4_000_000)),
    "values without bytes": ("d.npy", lambda: npy_header((2**62,), "|S0")),
    "a name that escapes": ("d.npz", lambda: zipped("../image.npy", saved(np.zeros((12, 3))))),
}
LABELS = {
    "too few": b"cat\ndog\n",
    "too many": b"cat\ndog\nmouse\nbird\n",
    "an empty line": b"cat\n\nmouse\n",
    "no text": b"\xff\xfe\x00\x01",
    "a program": b"\x7fELF" + bytes(range(256)) * 4,
    "a line without end": b"a" * 20_000_000,
    "nothing": b"",
}


def check_refused(ending, directory, before):
    assert ending.code == 2, ending
    assert ending.errors.startswith("keras-kd: error: "), ending
    assert ending.errors.count("\n") == 1, ending
    assert len(ending.errors) < 2000
    assert sorted(path.name for path in directory.iterdir()) == before
    assert not (directory.parent / "escaped").exists()


@pytest.mark.parametrize("kind", MODELS)
def test_models(keras_kd_program, good, tmp_path, monkeypatch, kind):
    name, make = MODELS[kind]
    work = tmp_path / "work"
    work.mkdir()
    # To make a model with code in it is to run the code once, here.
    monkeypatch.chdir(tmp_path)
    (work / name).write_bytes(make(good, tmp_path))
    memory = keras_kd_program(["--version"], work).megabytes
    for arguments in (
        ["convert", name, "--output", "new.tflite"],
        ["verify", good / "model.tflite", "--against", name, "--data", good / "data.npy"],
        ["report", name, "--data", good / "data.npy", "--labels", good / "labels.npy"],
    ):
        ending = keras_kd_program(arguments, work)
        check_refused(ending, work, [name])
        assert ending.megabytes < memory + 1024
    assert not (work / MARKER).exists()


@pytest.mark.parametrize("kind", DATA)
def test_data(keras_kd_program, good, tmp_path, kind):
    name, make = DATA[kind]
    (tmp_path / name).write_bytes(make())
    memory = keras_kd_program(["--version"], tmp_path).megabytes
    convert = ["convert", good / "model.keras", "--quantization", "int8", "--output", "new.tflite"]
    commands = [
        [*convert, "--representative-data", name],
        ["verify", good / "model.tflite", "--against", good / "model.keras", "--data", name],
        ["store", good / "model.keras", "--data", name, "--output", "new.store"],
    ]
    # Predictions may have any name and any shape.
    if not kind.startswith("another"):
        commands.append(["store", "--predictions", name, "--output", "new.store"])
    # A report takes one array, whatever it is called: its models may call their inputs otherwise.
    if kind != "another name":
        labels = good / "labels.npy"
        commands.append(["report", good / "model.tflite", "--data", name, "--labels", labels])
    for arguments in commands:
        ending = keras_kd_program(arguments, tmp_path)
        check_refused(ending, tmp_path, [name])
        assert ending.megabytes < memory + 1024


@pytest.mark.parametrize("kind", LABELS)
def test_labels(keras_kd_program, good, tmp_path, kind):
    (tmp_path / "labels.txt").write_bytes(LABELS[kind])
    model = ["convert", good / "model.keras", "--output", "new.tflite"]
    ending = keras_kd_program([*model, "--class-names", "labels.txt"], tmp_path)
    check_refused(ending, tmp_path, ["labels.txt"])


@pytest.mark.parametrize("command", ["inspect", pytest.param("benchmark", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["a member that escapes", "a bomb", "two archives"])
def test_metadata(keras_kd_program, good, tmp_path, command, kind):
    """What lies behind the model concerns neither: they show the model, and write nothing."""
    content = bytearray((good / "labeled.tflite").read_bytes())
    with zipfile.ZipFile(good / "labeled.tflite") as archive:
        start = min(member.header_offset for member in archive.infolist())
    model = bytes(content[:start])
    archives = {
        "a member that escapes": zipped("../escaped", b"x"),
        "a bomb": zipped("labels.txt", bytes(200_000_000)),
        "two archives": zipped("labels.txt", b"a") + zipped("labels.txt", b"b"),
    }
    (tmp_path / "m.tflite").write_bytes(model + archives[kind])
    memory = keras_kd_program(["--version"], tmp_path).megabytes
    ending = keras_kd_program([command, "m.tflite"], tmp_path)
    assert ending.code in (0, 2), ending
    assert "Traceback" not in ending.errors
    assert ending.megabytes < memory + 1024
    assert [path.name for path in tmp_path.iterdir()] == ["m.tflite"]
    assert not (tmp_path.parent / "escaped").exists()


def test_stores_that_say_anything(keras_kd_program, damage, good, tmp_path):
    """A store may lie under the right checksums; who reads it finds out, or shows what it says."""
    records = Records(good / "teacher.store")
    rows = records.read(np.arange(records.count))
    outputs = np.array([list(output) for output in rows.outputs], "u1")
    outputs = outputs.view([("all", "u1", outputs.shape[1:])])[:, 0]
    generator = random.Random(0)
    work = tmp_path / "work"
    refused = 0
    for _ in range(60):
        changed = damage.json_value(json.dumps(records.description).encode(), generator)
        with RecordWriter(work, json.loads(changed), outputs.itemsize) as writer:
            writer.append(None, rows.fingerprints, outputs)
            writer.finish()
        try:
            ending = keras_kd_program(["inspect", "work"], tmp_path)
            assert ending.code in (0, 2), (changed, ending)
            assert "Traceback" not in ending.errors
            if ending.code == 2:
                refused += 1
                check_refused(ending, tmp_path, ["work"])
            with contextlib.suppress(ValueError):
                teachers.StoredTeacher(work).read([0])
        finally:
            work.unlink()
    assert refused > 20


def store_commands(good):
    return (
        ["inspect", "work"],
        ["store", "--predictions", good / "logits.npy", "--output", "work"],
    )


def test_schemas_that_would_do_something(keras_kd_program, good, tmp_path):
    work = tmp_path / "work"
    for statement in (
        f"CREATE TRIGGER t AFTER INSERT ON records BEGIN SELECT writefile('{MARKER}', 'x'); END",
        f"CREATE TRIGGER t AFTER UPDATE ON store BEGIN SELECT writefile('{MARKER}', 'x'); END",
        f"CREATE VIEW v AS SELECT writefile('{MARKER}', 'x')",
        "CREATE TABLE sqlite_stat1 (tbl, idx, stat)",
        "CREATE INDEX i ON records (abs(place))",
    ):
        shutil.copy(good / "teacher.store", work)
        connection = sqlite3.connect(work)
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute(statement)
        connection.execute("ANALYZE")
        connection.close()
        for arguments in store_commands(good):
            check_refused(keras_kd_program(arguments, tmp_path), tmp_path, ["work"])


@pytest.mark.parametrize("name", ["work", "work-journal"])
def test_a_pipe_is_not_waited_for(keras_kd_program, good, tmp_path, name):
    before = sorted({"work", name})
    shutil.copy(good / "teacher.store", tmp_path / "work")
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    for arguments in store_commands(good):
        check_refused(keras_kd_program(arguments, tmp_path), tmp_path, before)


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("name", ["work", "work-journal"])
def test_a_link_is_not_followed(keras_kd_program, good, tmp_path, name, complete):
    """A store of somebody else, with a link to a file of the user."""
    work, victim = tmp_path / "work", tmp_path / "victim"
    shutil.copy(good / "teacher.store", work)
    if not complete:
        said = np.load(good / "logits.npy")

        def ends_early():
            yield said[:4]
            raise RuntimeError

        work.unlink()
        with contextlib.suppress(RuntimeError):
            teachers.StoredTeacher.from_outputs(ends_early(), work, name="logits")
    if name == "work":
        work.rename(victim)
    else:
        victim.write_text("mine")
    before = victim.read_bytes()
    (tmp_path / name).symlink_to(victim)
    for arguments in store_commands(good):
        ending = keras_kd_program(arguments, tmp_path)
        check_refused(ending, tmp_path, sorted({"work", name, "victim"}))
        assert "symbolic link" in ending.errors or (name, arguments[0]) == ("work", "inspect")
    assert victim.read_bytes() == before
