"""Files that follow TFLite's schema and whose graph is wrong: some of them crash LiteRT itself."""

import shutil

import keras
import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite import TFLiteModel

COMMANDS = (
    "inspect {file}",
    "verify {file} --against {models}/model.keras --data {models}/data.npy",
    "benchmark {file} --runs 2 --threads 1 --kernels builtin",
    "report {file} --data {models}/data.npy --labels {models}/labels.npy --output page",
)
# Operator, input, and the tensor in its place; None: this input and those behind it are missing.
LACKING = (
    ("FULLY_CONNECTED", 1, -1),
    ("RESHAPE", 0, -1),
    ("STRIDED_SLICE", 1, None),
    ("CONV_2D", 0, -1),
    ("PAD", 1, None),
    ("CONCATENATION", 0, None),
    ("MAX_POOL_2D", 0, -1),
)
FORMS = ("float32", "int8")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A directory with a model that has operators of many kinds, its files, and data."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((6, 6, 3), name="image")
    x = layers.MaxPooling2D(2)(layers.Conv2D(4, 3, activation="relu")(image))
    padded = keras.ops.pad(x[:, :1], [[0, 0], [0, 1], [0, 0], [0, 0]])
    x = layers.Dense(8, activation="relu")(layers.Flatten()(layers.Concatenate()([x, padded])))
    model = keras.Model(image, layers.Dense(3, activation="softmax", name="kind")(x))
    directory = tmp_path_factory.mktemp("structures")
    images = np.random.default_rng(0).random((12, 6, 6, 3), np.float32)
    model.save(directory / "model.keras")
    np.save(directory / "data.npy", images)
    np.save(directory / "labels.npy", np.zeros(12, int))
    for form in FORMS:
        tflite.convert(model, form, images if form == "int8" else None).save(
            directory / f"{form}.tflite"
        )
    return directory


def survives(content, x):
    """How Python takes the file: "runs", "refused", or "ended" where LiteRT's process did not."""
    try:
        model = TFLiteModel(content)
        str(model.inspect())
        model.predict(x)
        model.benchmark(2, threads=1, kernels="builtin", memory=False)
    except ValueError as error:
        text = str(error)
    else:
        return "runs"
    assert text.startswith("Received ")
    return "ended" if "LiteRT fails (" in text else "refused"


def check_commands(program, models, directory, content):
    """Every command gives a result, or one line and nothing written."""
    (directory / "mutant.tflite").write_bytes(content)
    codes = []
    for command in COMMANDS:
        ending = program(command.format(file="mutant.tflite", models=models).split(), directory)
        # A file that runs may compute something else.
        assert ending.code in ((0, 1, 2) if command.startswith("verify") else (0, 2)), ending
        assert "Traceback" not in ending.errors
        if ending.code == 2:
            assert ending.output == ""
            assert ending.errors.startswith("keras-kd: error: "), (command, ending)
            assert ending.errors.count("\n") == 1
            assert [path.name for path in directory.iterdir()] == ["mutant.tflite"]
        shutil.rmtree(directory / "page", ignore_errors=True)
        codes.append(ending.code)
    return codes


@pytest.mark.parametrize("form", FORMS)
def test_operators_without_an_input_is_refused_in_python(mutation, models, form):
    original = (models / f"{form}.tflite").read_bytes()
    x = np.load(models / "data.npy")[:2]
    endings = [survives(mutation.crafted(original, *crash), x) for crash in LACKING]
    # Some crash LiteRT, others read what lies beside: none of them gets that far.
    assert set(endings) == {"refused"}
    # The next model does not notice.
    assert survives(original, x) == "runs"


@pytest.mark.parametrize("crash", LACKING[:3])
def test_operators_without_an_input_is_refused_by_commands(
    mutation, models, keras_kd_program, tmp_path, crash
):
    original = (models / "float32.tflite").read_bytes()
    content = mutation.crafted(original, *crash)
    codes = check_commands(keras_kd_program, models, tmp_path, content)
    # A file that is only read may show what is in it.
    run = [code for command, code in zip(COMMANDS, codes, strict=True) if "inspect" not in command]
    assert run == [2, 2, 2]


def test_few_mutants_in_python(mutation, models, monkeypatch):
    monkeypatch.setenv("KERAS_KD_SECONDS", "2")
    x = np.load(models / "data.npy")[:2]
    endings = [
        survives(content, x)
        for _, content in mutation.mutated((models / "float32.tflite").read_bytes(), 7, 60)
    ]
    assert {"runs", "refused"} <= set(endings)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("form", FORMS)
def test_many_mutants_in_python(mutation, models, monkeypatch, form, seed):
    monkeypatch.setenv("KERAS_KD_SECONDS", "2")
    x = np.load(models / "data.npy")[:2]
    endings = []
    original = (models / f"{form}.tflite").read_bytes()
    for number, (change, content) in enumerate(mutation.mutated(original, seed, 200)):
        try:
            endings.append(survives(content, x))
        except BaseException as error:
            raise AssertionError(f"{change}, number {number} of seed {seed}") from error
    assert {"runs", "refused"} <= set(endings)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_many_mutants_through_commands(
    mutation, models, keras_kd_program, tmp_path, monkeypatch, form
):
    monkeypatch.setenv("KERAS_KD_SECONDS", "5")
    keras_kd_program.stop()
    original = (models / f"{form}.tflite").read_bytes()
    for number, (change, content) in enumerate(mutation.mutated(original, 11, 60)):
        try:
            check_commands(keras_kd_program, models, tmp_path, content)
        except AssertionError as error:
            raise AssertionError(f"{change}, number {number}: {error}") from error


def test_the_same_seed_makes_the_same_mutants(mutation, models):
    original = (models / "int8.tflite").read_bytes()
    first, second = (list(mutation.mutated(original, 3, 15)) for _ in range(2))
    assert first == second
    assert len({content for _, content in first}) == 15
