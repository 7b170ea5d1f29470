import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from keras_kd import cli, tflite
from keras_kd.data.named import NAMES
from keras_kd.quickstart import Settings
from keras_kd.tflite.conversion.convert import QUANTIZATIONS, TARGETS
from keras_kd.tflite.runtimes.litert import KERNELS


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A directory with a small model, its .tflite, and examples."""
    directory = tmp_path_factory.mktemp("models")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1), name="image"),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.save(directory / "model.keras")
    tflite.convert(model).save(directory / "model.tflite")
    examples = np.random.default_rng(0).random((30, 6, 6, 1), dtype="float32")
    np.save(directory / "examples.npy", examples)
    np.savez(directory / "examples.npz", image=examples)
    np.save(directory / "empty.npy", examples[:0])
    np.save(directory / "narrow.npy", examples[:, :4])
    np.save(directory / "text.npy", np.array(["a", "b"]))
    np.save(directory / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for name in ("model.keras", "model.tflite", "examples.npy", "examples.npz"):
        content = (directory / name).read_bytes()
        (directory / f"damaged_{name}").write_bytes(content[: len(content) // 2])
    (directory / "empty.tflite").touch()
    (directory / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    code = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x + 1)])
    code.save(directory / "code.keras")
    return directory


@pytest.mark.parametrize("command", ["", "quickstart", "convert", "inspect", "benchmark"])
def test_help(command, capsys):
    assert cli.main([*command.split(), "--help"]) == 0
    assert f"usage: {f'keras-kd {command}'.strip()}" in capsys.readouterr().out


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("keras-kd 0.")


@pytest.mark.parametrize(
    ("command", "option", "values"),
    [
        ("quickstart", "--dataset", NAMES),
        ("convert", "--quantization", QUANTIZATIONS),
        ("convert", "--target", TARGETS),
        ("benchmark", "--kernels", KERNELS),
    ],
)
def test_choices_are_those_of_the_library(command, option, values, capsys):
    assert cli.main([command, "--help"]) == 0
    assert f"{option} {{{','.join(values)}}}" in capsys.readouterr().out


def test_defaults_are_those_of_the_library():
    arguments = cli._parser().parse_args(["quickstart"])
    defaults = vars(Settings())
    given = {name: value for name, value in vars(arguments).items() if name != "run"}
    assert given == {name: defaults[name] for name in given}


BAD = {
    "": "the following arguments are required",
    "teach": "invalid choice: 'teach'",
    "quickstart --speed 3": "unrecognized arguments: --speed 3",
    "quickstart --epochs many": "invalid int value: 'many'",
    "quickstart --epochs 0": "Received epochs=0",
    "quickstart --seed -1": "Received seed=-1",
    "quickstart --dataset imagenet": "invalid choice: 'imagenet'",
    "quickstart --data-dir {models}": "without a data set",
    "quickstart --dataset mnist --data-dir {models}": "does not hold 'mnist'",
    "quickstart --dataset mnist --data-dir missing": "does not hold 'mnist'",
    "quickstart --output {models}/model.keras": "is a file",
    "quickstart --output missing/results": "mkdir -p missing",
    "convert": "the following arguments are required",
    "convert missing.keras": "the path 'missing.keras'",
    "convert {models}": "Expected a model saved by Keras 3",
    "convert {models}/model.h5": "Expected a model saved by Keras 3",
    "convert {models}/damaged_model.keras": "which Keras refuses (it is no zip archive)",
    "convert {models}/code.keras": "which Keras refuses",
    "convert {models}/model.keras --quantization int7": "invalid choice: 'int7'",
    "convert {models}/model.keras --target toaster": "invalid choice: 'toaster'",
    "convert {models}/model.keras --output {models}/model.tflite/x.tflite": "model.tflite",
    "convert {models}/model.keras --quantization int8 --output x.tflite": "representative",
    "convert {models}/model.keras --quantization float16 --target microcontroller": "float16",
    "convert {models}/model.keras --output {models}/model.keras": "ends in .tflite",
    "convert {models}/model.keras --output firmware": "mkdir -p firmware",
    "convert .": "the path '.'",
    "inspect missing.tflite": "the path 'missing.tflite'",
    "inspect {models}": "Expected a .tflite file",
    "inspect {models}/empty.tflite": "empty.tflite",
    "inspect {models}/damaged_model.tflite": "damaged_model.tflite",
    "inspect {models}/model.keras": "model.keras",
    "benchmark {models}/model.tflite missing.tflite": "the path 'missing.tflite'",
    "benchmark {models}/model.tflite --runs 0": "Received runs=0",
    "benchmark {models}/model.tflite --threads -1": "Received threads=-1",
}
BAD |= {
    "convert {models}/model.keras --quantization int8 --output x.tflite --representative-data "
    + data: message
    for data, message in {
        "missing.npy": "the path 'missing.npy'",
        "{models}/damaged_examples.npy": "which NumPy cannot read",
        "{models}/damaged_examples.npz": "which NumPy cannot read",
        "{models}/pickled.npy": "which NumPy cannot read",
        "{models}/model.tflite": "which NumPy cannot read",
        "{models}/model.keras": "which NumPy cannot read",
        "{models}/text.npy": "Expected numbers",
        "{models}/empty.npy": "Received",
        "{models}/narrow.npy": "Received",
    }.items()
}


@pytest.mark.parametrize("level", [None, "0"])
def test_native_messages_are_shown_only_to_who_set_the_log_level(level, monkeypatch, capfd):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    if level is not None:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)

    def talk(arguments):
        os.write(2, b"native\n")
        print("python", file=sys.stderr)

    monkeypatch.setattr(cli, "_inspect", talk)
    assert cli.main(["inspect", "any.tflite"]) == 0
    os.write(2, b"afterwards\n")
    said = capfd.readouterr().err.splitlines()
    shown = ["native"] if level else []
    assert said == [*shown, "python", "afterwards"]
    assert os.environ.get("TF_CPP_MIN_LOG_LEVEL") == level


@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_one_line_and_code_2_and_writes_nothing(command, models, folder, capfd):
    before = sorted(os.listdir(models))
    assert cli.main([word.format(models=models) for word in command.split()]) == 2
    out, err = capfd.readouterr()
    assert not out
    (line,) = err.splitlines()
    assert line.startswith("keras-kd: error: ")
    assert BAD[command] in line
    assert not any(folder.iterdir())
    assert sorted(os.listdir(models)) == before


def test_convert_to_a_file_says_what_it_made(models, folder, capsys):
    assert cli.main(["convert", str(models / "model.keras"), "--output", "student.tflite"]) == 0
    assert os.listdir(folder) == ["student.tflite"]
    out = capsys.readouterr().out
    for text in ("image float32[1, 6, 6, 1]", "CONV_2D", "student.tflite"):
        assert text in out


def test_convert_beside_the_model_by_default(models, folder):
    (folder / "mine.keras").write_bytes((models / "model.keras").read_bytes())
    assert cli.main(["convert", "mine.keras"]) == 0
    assert sorted(os.listdir(folder)) == ["mine.keras", "mine.tflite"]


@pytest.mark.skipif(not tflite.microcontroller.is_installed(), reason="needs tflite-micro")
@pytest.mark.parametrize("data", ["examples.npy", "examples.npz"])
def test_convert_for_a_microcontroller_into_a_directory(models, folder, data):
    (folder / "firmware").mkdir()
    command = ["convert", str(models / "model.keras"), "--output", "firmware"]
    command += ["--quantization", "int8", "--target", "microcontroller"]
    assert cli.main([*command, "--representative-data", str(models / data)]) == 0
    assert sorted(os.listdir(folder / "firmware")) == [
        "model.tflite",
        "model_data.cc",
        "model_data.h",
    ]
    (tensor,) = tflite.TFLiteModel.load(folder / "firmware" / "model.tflite").inputs
    assert tensor.dtype == np.int8


def test_inspect(models, capsys):
    assert cli.main(["inspect", str(models / "model.tflite")]) == 0
    out = capsys.readouterr().out
    for text in ("bytes", "image float32[1, 6, 6, 1]", "CONV_2D"):
        assert text in out


def test_benchmark_has_a_line_per_file(models, capsys):
    file = str(models / "model.tflite")
    assert cli.main(["benchmark", file, file, "--runs", "5"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert "microseconds" in heading
    assert [line.split()[-1] for line in lines] == [file, file]


def test_a_process_of_its_own_ends_with_the_code_and_one_line(folder, monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    process = subprocess.run(
        [sys.executable, "-m", "keras_kd", "inspect", "missing.tflite"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    (line,) = process.stderr.splitlines()
    assert line.startswith("keras-kd: error: Received the path")


def test_who_reads_no_further_sees_no_error(models):
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_kd", "inspect", str(models / "model.tflite")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"},
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


def test_help_waits_for_no_import_of_keras():
    program = (
        "import sys; sys.argv = ['keras-kd', '--help']; "
        "from keras_kd import cli; cli.main(); "
        "sys.exit('keras' in sys.modules or 'tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_control_c_ends_a_quickstart_and_leaves_nothing(folder):
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "keras_kd", "quickstart", "--epochs", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().startswith("train the teacher: ")
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "keras-kd: interrupted"
    assert "Traceback" not in err
    assert not any(folder.iterdir())
