"""`keras-kd fit`: what it refuses at once, and a whole search."""

import json
import re

import numpy as np
import pytest

from keras_kd import cli


@pytest.fixture
def data(models, folder):
    x = np.load(models / "examples.npy")
    y = np.load(models / "labels.npy")
    np.savez("train.npz", x=np.repeat(x, 20, axis=0), y=np.repeat(y, 20))
    np.savez("val.npz", image=x, y=y)
    np.savez("unlabelled.npz", x=x)
    np.savez("long.npz", x=x, y=y[:-1])
    return folder


def words(models, *more, data="train.npz", validation="val.npz"):
    given = ("fit", models / "model.keras", "--data", data, "--validation", validation)
    return [str(word) for word in (*given, "--output", "out", *more)]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "a device for --target microcontroller without a limit"),
        (["--flash", "many"], "flash='many'|--flash many"),
        (["--device", "toaster"], "--device toaster.*cortex-m4-256k"),
        (["--device", "nrf52840", "--flash", "1MB"], "--device nrf52840 with --flash"),
        (["--flash", "64KB", "--latency", "3"], "cannot be measured on this computer"),
        (["--flash", "64 QB"], r'--flash "64 QB"\. Expected a number and B, KB, MB or GB'),
        (["--flash", "-5KB"], "-5KB|expected one argument"),
        (["--target", "web", "--latency", "nan"], "--latency: .*nan"),
        (["--target", "web", "--ram", "64KB"], "leave --ram out"),
        (["--flash", "64KB", "--compressed"], r"--compressed for a .*leave --compressed out"),
        (["--device", "pixel", "--flash", "12KB"], "--device pixel with --flash.*leave one"),
        (["--flash", "64KB", "--trials", "0"], "at least 1"),
        (["--flash", "64KB", "--keep", "2"], "at most 1"),
        (["--flash", "64KB", "--keep", "0.9", "--goal", "0.9"], "one of them"),
    ],
)
def test_what_cannot_be_is_refused(models, data, capsys, more, message):
    assert cli.main(words(models, *more)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert re.search(message, err), err
    assert not (data / "out").exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"data": "gone.npz"}, "gone.npz"),
        ({"data": "unlabelled.npz"}, r"--data 'unlabelled.npz' with the arrays \['x'\]"),
        ({"validation": "long.npz"}, "--validation with arrays of"),
    ],
)
def test_data_that_do_not_fit_are_refused(models, data, capsys, files, message):
    assert cli.main(words(models, "--flash", "64KB", **files)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert re.search(message, err), err


def test_a_search_of_others_is_named_by_its_directory(models, data, capsys):
    (data / "out" / "search").mkdir(parents=True)
    manifest = {"version": 1, "identity": {"trials": 3}, "candidates": {}, "seconds": 1.0}
    (data / "out" / "search" / "search.json").write_text(json.dumps(manifest))
    assert cli.main(words(models, "--flash", "64KB")) == 2
    err = capsys.readouterr().err
    assert "the directory 'out/search' with a search of other " in err.splitlines()[-1]
    assert "--output" not in err


@pytest.mark.slow
def test_a_whole_search(models, data, run, capsys):
    pytest.importorskip("tflite_micro")
    more = ("--flash", "60KB", "--ram", "8KB", "--trials", 1, "--epochs", 1, "--json")
    result = json.loads(run(*words(models, *map(str, more))))
    assert result["winner"] in [each["name"] for each in result["candidates"]]
    for file in result["files"]:
        assert (data / file).exists()
    assert {"model.tflite", "model.cc"} <= {file.split("/")[-1] for file in result["files"]}
    again = run(*words(models, *map(str, more[:-1])))
    assert f"Best that fits: {result['winner']}" in again
