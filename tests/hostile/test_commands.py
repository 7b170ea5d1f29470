"""Damaged and hostile files through every command that reads them.

A command may find nothing wrong with a flipped bit in a weight. Otherwise it says in one line what
is wrong, ends with code 2, and has written nothing.
"""

import shutil
import zlib

import pytest

# {file} is the damaged one; what else is needed is good.
FILE_COMMANDS = (
    "inspect {file}",
    "verify {file} --against {good}/model.keras --data {good}/data.npy",
    "benchmark {file} --runs 2 --threads 1 --kernels builtin",
    "report {file} --data {good}/data.npy --labels {good}/labels.npy --output page",
)
MODEL_COMMANDS = (
    "inspect {file}",
    "store {file} --data {good}/data.npy --output new.store",
    "convert {file} --output new.tflite",
    "verify {good}/model.tflite --against {file} --data {good}/data.npy",
    "report {file} --data {good}/data.npy --labels {good}/labels.npy --output page",
)
DATA_COMMANDS = (
    "store {good}/model.keras --data {file} --output new.store",
    "store --predictions {file} --data {good}/data.npy --output new.store",
    "convert {good}/model.keras --quantization int8 --representative-data {file} "
    "--output new.tflite",
    "convert {good}/model.keras --verification-data {file} --output new.tflite",
    "verify {good}/model.tflite --against {good}/model.keras --data {file}",
    "report {good}/model.tflite --data {file} --labels {good}/labels.npy --output page",
)
STORE_COMMANDS = (
    "inspect {file}",
    "store --predictions {good}/logits.npy --output {file}",
)
COMMANDS = {
    "model.tflite": FILE_COMMANDS,
    "labeled.tflite": FILE_COMMANDS,
    "model.keras": MODEL_COMMANDS,
    "model.h5": MODEL_COMMANDS,
    "data.npy": DATA_COMMANDS,
    "data.npz": DATA_COMMANDS,
    "keys.npy": ("store --predictions {good}/logits.npy --keys {file} --output new.store",),
    "teacher.store": STORE_COMMANDS,
    "keyed.store": ("inspect {file}",),
    "labels.npy": (
        "convert {good}/model.keras --verification-data {good}/data.npy "
        "--verification-labels {file} --output new.tflite",
        "verify {good}/model.tflite --against {good}/model.keras --data {good}/data.npy "
        "--labels {file}",
        "report {good}/model.tflite --data {good}/data.npy --labels {file} --output page",
    ),
    "labels.txt": (
        "convert {good}/model.keras --class-names {file} --output new.tflite",
        "report {good}/model.tflite --data {good}/data.npy --labels {good}/labels.npy "
        "--class-names {file} --output page",
    ),
}
FEW = 4
# Together 570. A damaged model costs more time than damaged data, and matters more.
ALL = {
    "model.tflite": 100,
    "labeled.tflite": 80,
    "model.keras": 100,
    "model.h5": 60,
    "data.npy": 50,
    "data.npz": 40,
    "keys.npy": 15,
    "teacher.store": 45,
    "keyed.store": 10,
    "labels.npy": 30,
    "labels.txt": 40,
}
# What commands make.
MADE = ("new.tflite", "new.store", "page")
# A model and a few images: what is more was allocated for sizes that nothing stands behind.
MOST_MEGABYTES_MORE = 1024


def check_ending(ending, directory, before):
    """A result, or one line and nothing written."""
    written = sorted(path.name for path in directory.rglob("*"))
    # 1: the file runs, and computes something else than the model.
    if ending.code in (0, 1):
        assert "Traceback" not in ending.errors
        return
    assert ending.code == 2, ending
    assert ending.output == "", ending
    assert ending.errors.startswith("keras-kd: error: "), ending
    assert ending.errors.count("\n") == 1, ending
    assert ending.errors.endswith("\n"), ending
    assert "Traceback" not in ending.errors
    assert written == before, ending


def run_all(program, templates, file, good, directory):
    """Each command on the file; returns how many refused it."""
    refused = 0
    for template in templates:
        before = sorted(path.name for path in directory.rglob("*"))
        arguments = template.format(file=file, good=good).split()
        ending = program(arguments, directory)
        check_ending(ending, directory, before)
        refused += ending.code == 2
        for path in (directory / made for made in MADE):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return refused


def hold_against(program, damage, good, directory, name, files):
    refused = 0
    most = None
    original = (good / name).read_bytes()
    for number, (change, content) in enumerate(
        damage.damaged(original, zlib.crc32(name.encode()), files)
    ):
        file = directory / name
        file.write_bytes(content)
        try:
            refused += run_all(program, COMMANDS[name], file, good, directory)
        except AssertionError as error:
            raise AssertionError(f"{change}, number {number} of {name}: {error}") from error
        megabytes = program(["--version"], directory).megabytes
        most = megabytes if most is None else most
        assert megabytes < most + MOST_MEGABYTES_MORE, f"{change}, number {number} of {name}"
    return refused


@pytest.mark.parametrize("name", COMMANDS)
def test_good_files_pass(keras_kd_program, good, tmp_path, name):
    for template in COMMANDS[name]:
        file = good / name
        arguments = template.format(file=file, good=good).split()
        ending = keras_kd_program(arguments, tmp_path)
        assert ending.code == 0, ending
        shutil.rmtree(tmp_path / "page", ignore_errors=True)
        (tmp_path / "new.store").unlink(missing_ok=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_few_damaged_files(keras_kd_program, damage, good, tmp_path, name):
    assert hold_against(keras_kd_program, damage, good, tmp_path, name, FEW) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_all_damaged_files(keras_kd_program, damage, good, tmp_path, name):
    assert hold_against(keras_kd_program, damage, good, tmp_path, name, ALL[name]) > 0


def test_there_are_five_hundred_and_more():
    assert sum(ALL.values()) == 570
    assert ALL.keys() == COMMANDS.keys()


def test_the_same_seed_makes_the_same_files(damage, good):
    original = (good / "model.keras").read_bytes()
    first, second = (list(damage.damaged(original, 7, 20)) for _ in range(2))
    assert first == second
    assert len({content for _, content in first}) > 15
