import os
import signal
import subprocess
import sys
import time

import pytest

from keras_kd import cli
from keras_kd.cli.program import parser
from keras_kd.data.named import NAMES
from keras_kd.quickstart import Settings
from keras_kd.teachers.stored.codecs import DTYPES
from keras_kd.tflite.conversion.forms import FORMS
from keras_kd.tflite.conversion.targets import TARGETS
from keras_kd.tflite.runtimes.litert import KERNELS

COMMANDS = ["quickstart", "store", "fit", "convert", "inspect", "verify", "benchmark", "report"]


@pytest.mark.parametrize("command", ["", *COMMANDS])
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
        ("store", "--dtype", DTYPES),
        ("convert", "--quantization", tuple(FORMS)),
        ("convert", "--target", TARGETS),
        ("benchmark", "--kernels", KERNELS),
    ],
)
def test_choices_are_those_of_the_library(command, option, values, capsys):
    assert cli.main([command, "--help"]) == 0
    assert f"{option} {{{','.join(values)}}}" in capsys.readouterr().out


def test_defaults_are_those_of_the_library():
    arguments = parser().parse_args(["quickstart"])
    defaults = vars(Settings())
    given = {
        name: value for name, value in vars(arguments).items() if name not in ("run", "command")
    }
    assert given == {name: defaults[name] for name in given}


BAD = {
    "": "the following arguments are required",
    "teach": "invalid choice: 'teach'",
    "quickstart --speed 3": "unrecognized arguments: --speed 3",
    "quickstart --epochs many": "invalid whole number value: 'many'",
    "quickstart --epochs 0": "argument --epochs: Received 0",
    "quickstart --seed -1": "argument --seed: Received -1",
    "quickstart --dataset imagenet": "invalid choice: 'imagenet'",
    "quickstart --data-dir {models}": "without a data set",
    "quickstart --dataset mnist --data-dir {models}": "does not hold 'mnist'",
    "quickstart --dataset mnist --data-dir missing": "does not hold 'mnist'",
    "quickstart --output {models}/model.keras": "is a file",
    "quickstart --output missing/results": "mkdir -p missing",
    "convert": "the following arguments are required",
    "convert missing.keras": "the path 'missing.keras'",
    "convert {models}": "Expected a model saved by Keras 3",
    "convert {models}/model.tflite": "a .tflite is the result",
    "convert {models}/damaged_model.keras": "which is refused (it is no zip archive)",
    "convert {models}/damaged_model.h5": "which is refused",
    "convert {models}/code.keras": "replace Lambda layers",
    "convert {models}/model.keras --custom-objects layers.py": "the path 'layers.py'",
    "convert {models}/model.keras --custom-objects no_such_module": "cannot be imported",
    "convert {models}/model.keras --quantization int7": "invalid choice: 'int7'",
    "convert {models}/model.keras --target toaster": "invalid choice: 'toaster'",
    "convert {models}/model.keras --input-range 1 0 --output x.tflite": "--input-range 1.0 0.0",
    "convert {models}/model.keras --output {models}/model.tflite/x.tflite": "model.tflite",
    "convert {models}/model.keras --quantization int8 --output x.tflite": "--representative-data",
    "convert {models}/model.keras --quantization float16 --target microcontroller": "float16",
    "convert {models}/model.keras --output {models}/model.keras": "ends in .tflite",
    "convert {models}/model.keras --output student": "mkdir -p student",
    "convert {models}/model.keras --target microcontroller --output a/b": "mkdir -p a",
    "convert {models}/model.keras --verification-labels {models}/labels.npy --output x.tflite": (
        "labels without --verification-data"
    ),
    "convert {models}/model.keras --output x.tflite --author me": "--author without --class-names",
    "convert {models}/model.keras --target web --output x.tflite "
    "--class-names {models}/labels.txt": ("metadata with --target web"),
    "convert {models}/model.keras --output x.tflite "
    "--class-names {models}/two_labels.txt": "Received",
    "convert {models}/model.keras --output x.tflite "
    "--class-names {models}/empty_labels.txt": "name ''",
    "convert {models}/model.keras --output x.tflite --class-names {models}/latin.txt": "not UTF-8",
    "convert {models}/model.keras --output x.tflite "
    "--class-names missing.txt": "path 'missing.txt'",
    "convert .": "the directory '.'",
    "convert {models}/model.keras --per-tensor": "--per-tensor with --quantization float32",
    "convert {models}/model.keras --input-type uint8 --output x.tflite": (
        "--input-type uint8 with --quantization float32"
    ),
    "inspect missing.tflite": "the path 'missing.tflite'",
    "inspect {models}": "a store that keras-kd store has written",
    "inspect {models}/exported": "the .keras that it was exported from",
    "inspect {models}/damaged_model.h5": "damaged_model.h5",
    "inspect missing.keras": "the path 'missing.keras'",
    "inspect {models}/labels.txt": "labels.txt",
    "inspect {models}/empty.tflite": "empty.tflite",
    "inspect {models}/damaged_model.tflite": "damaged_model.tflite",
    "inspect {models}/damaged_model.keras": "damaged_model.keras",
    "verify {models}/model.tflite": "the following arguments are required",
    "verify {models}/model.tflite --against {models}/model.keras --data x.npy": "path 'x.npy'",
    "verify {models}/model.tflite --against x.h5 --data {models}/examples.npy": "path 'x.h5'",
    "verify {models}/model.tflite --against {models}/model.keras --data {models}/misnamed.npz": (
        "with the names ['picture']"
    ),
    "verify {models}/model.tflite --against {models}/model.keras --data {models}/examples.npy "
    "--min-agreement 101": "argument --min-agreement: Received 101",
    "verify {models}/model.tflite --against {models}/model.keras --data {models}/examples.npy "
    "--map image": "Expected FILE_NAME=MODEL_NAME",
    "verify {models}/model.tflite --against {models}/model.keras --data {models}/examples.npy "
    "--map image=image --map image=x": "twice in --map",
    "verify {models}/model.tflite --against {models}/model.keras --data {models}/examples.npy "
    "--map picture=image": "the names ['picture'] of the file",
    "verify {models}/model.tflite --against {models}/model.keras --data {models}/examples.npy "
    "--map image=picture": "one of ['image'], the student's",
    "verify missing.tflite --against {models}/model.keras --data {models}/examples.npy": "path 'mi",
    "benchmark": "the following arguments are required",
    "benchmark {models}/model.tflite missing.tflite": "the path 'missing.tflite'",
    "benchmark {models}/model.tflite --runs 0": "argument --runs: Received 0",
    "benchmark {models}/model.tflite --threads -1": "argument --threads: Received -1",
    "benchmark {models}/model.tflite --kernels fast": "invalid choice: 'fast'",
    "report {models}/model.tflite": "the following arguments are required",
}
STORE = "store {models}/model.keras --output t.store --data "
BAD |= {
    "store": "the following arguments are required: --output",
    "store --output t.store": "one of the arguments",
    "store {models}/model.keras --output t.store": "a model without --data",
    "store {models}/model.keras --predictions x.npy --output t.store": "not allowed with",
    "store missing.keras --data {models}/examples.npy --output t.store": "path 'missing.keras'",
    "store {models}/model.keras --data {models}/examples.npy --output a/t.store": "mkdir -p a",
    "store {models}/model.keras --data {models}/examples.npy --output {models}/model.h5": (
        "not a store"
    ),
    "store {models}/model.keras --data {models}/examples.npy --output {models}": "choose another",
    "store --predictions missing.npy --output t.store": "the path 'missing.npy'",
    "store --predictions {models}/empty.npy --output t.store": "Received no predictions",
    "store --predictions {models}/narrow.npy --data {models}/labels.npy --output t.store --keys "
    "{models}/empty.npy": "one key for each example",
    "store --predictions {models}/narrow.npy --keys x.npy --output t.store": "the path 'x.npy'",
    "store --predictions {models}/narrow.npy --data {models}/two.npy --output t.store": (
        "predictions of 30 examples, and x or keys of 2"
    ),
    "store --predictions {models}/narrow.npy --outputs logits --output t.store": "a .npz",
    "store --predictions {models}/narrow.npy --custom-objects os --output t.store": "with a model",
    "store --predictions {models}/narrow.npy --probabilities --output t.store": "no softmax gives",
    "store --predictions {models}/probabilities.npy --output t.store": "--probabilities softmax",
}
BAD |= {
    STORE + rest: message
    for rest, message in {
        "missing.npy": "the path 'missing.npy'",
        "{models}/damaged_examples.npy": "which NumPy cannot read",
        "{models}/damaged_examples.npz": "which NumPy cannot read",
        "{models}/pickled.npy": "which NumPy cannot read",
        "{models}/text.npy": "Expected numbers",
        "{models}/empty.npy": "Received",
        "{models}/narrow.npy": "data of shape (1, 4, 6, 1) for the input 'image'",
        "{models}/misnamed.npz": "with the names ['picture']",
        "{models}/examples.npy --outputs no_such_layer": "no_such_layer",
        "{models}/examples.npy --top-k 4": "--top-k 4",
        "{models}/examples.npy --temperature 4": "--temperature without --top-k",
        "{models}/examples.npy --top-k 0": "argument --top-k: Received 0",
        "{models}/examples.npy --top-k 2 --temperature 0": "argument --temperature: Received 0",
        "{models}/examples.npy --batch-size 0": "argument --batch-size: Received 0",
        "{models}/examples.npy --dtype int4": "invalid choice: 'int4'",
        "{models}/examples.npy --probabilities": "--predictions; how a model ends is seen",
        "{models}/examples.npy --keys {models}/examples.npy": "one key for each example",
        "{models}/examples.npy --keys {models}/two.npy": "Received",
        "{models}/examples.npy --keys {models}/text.npy": "Received",
    }.items()
}
INT8 = "convert {models}/model.keras --quantization int8 --output x.tflite --representative-data "
BAD |= {
    INT8 + data: message
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
        "{models}/misnamed.npz": "with the names ['picture']",
        "{models}/exported": "exported",
    }.items()
}
REPORT = "report {models}/model.tflite --output results --data {models}/examples.npy --labels "
BAD |= {
    REPORT + rest: message
    for rest, message in {
        "missing.npy": "the path 'missing.npy'",
        "{models}/examples.npy": "a class for each example, shaped (30,)",
        "{models}/two.npy": "labels for the output 'output' of shape (2,)",
        "{models}/wrong_labels.npy": "whole numbers from 0 to 2, the classes",
        "{models}/labels.npy --baseline other.tflite": "--baseline 'other.tflite'",
        "{models}/labels.npy --task regression": "a number for each output",
        "{models}/labels.npy --groups {models}/labels.npy": "one score for each example",
        "{models}/labels.npy --class-names {models}/two_labels.txt": "Received",
        "{models}/labels.npy --teacher missing.keras": "the path 'missing.keras'",
    }.items()
}


# For the others a model must be built, a runtime asked, or a library that reads data.
NOT_STATIC = (
    "damaged_model",
    "code.keras",
    "no_such_module",
    "dataset mnist --data-dir {models}",
    "two_labels.txt",
    "narrow.npy",
    "misnamed.npz",
    "empty.npy",
    "two.npy",
    "probabilities.npy",
    "examples.npy --outputs",
    "examples.npy --top-k 4",
    "examples.npy --keys",
    "wrong_labels",
    "--labels {models}/examples.npy",
    "labels.npy --task",
    "labels.npy --groups",
    "empty.tflite",
    "--map image=picture",
    "--map picture=image",
    "exported",
)
STATIC = [command for command in BAD if not any(part in command for part in NOT_STATIC)]


def test_static_mistakes_wait_for_no_import_of_tensorflow(models, folder):
    commands = [[word.format(models=models) for word in command.split()] for command in STATIC]
    program = f"""
import os, sys, time
sys.argv[0] = "keras-kd"
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
from keras_kd import cli
for words in {commands!r}:
    began = time.process_time()
    code = cli.main(words)
    heavy = {{"keras", "tensorflow", "ai_edge_litert.interpreter"}} & set(sys.modules)
    if heavy or code != 2 or time.process_time() - began > 1:
        print(words, code, heavy, time.process_time() - began)
        break
"""
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert process.stdout == ""
    assert len(commands) > 60


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


# While TensorFlow is traced, objects are freed all the time; what is raised there is lost.
@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 0.3, 1, 2, 3, 4, 5, 7, 9, 12])
def test_control_c_ends_a_quickstart_and_leaves_what_is_finished(folder, seconds):
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "keras_kd", "quickstart", "--epochs", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().startswith("train the teacher: ")
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "keras-kd: interrupted"
    assert "Traceback" not in err
    assert [path.name for path in folder.iterdir()] == ["quickstart-results"]
    # The trainings so far, and nothing of their directory if none had begun.
    left = {path.name for path in (folder / "quickstart-results").iterdir()}
    assert left <= {"unfinished"}
    kept = [path for path in folder.rglob("unfinished/**/*") if path.is_file()]
    assert bool(kept) == bool(left)
    assert all(path.match("training-*.npz") for path in kept)
