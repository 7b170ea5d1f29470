"""Good files of every kind that commands read, and a process that runs commands."""

import importlib
import json
import os
import selectors
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_kd import teachers, tflite

HERE = Path(__file__).parent
SECONDS = 180
LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


@pytest.fixture(scope="session")
def damage():
    """What makes damaged files; see damage.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE.parent)
        return importlib.import_module("hostile.damage")


@pytest.fixture(scope="session")
def mutation():
    """What makes files of a wrong structure; see mutation.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE.parent)
        return importlib.import_module("hostile.mutation")


def build_student():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 3), name="image"),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax", name="kind"),
        ],
        name="student",
    )


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    """A directory with a good file of every kind."""
    directory = tmp_path_factory.mktemp("good")
    student = build_student()
    student.save(directory / "model.keras")
    student.save(directory / "model.h5")
    generator = np.random.default_rng(0)
    images = generator.random((12, 6, 6, 3), np.float32)
    np.save(directory / "data.npy", images)
    np.savez(directory / "data.npz", image=images)
    np.save(directory / "labels.npy", generator.integers(0, 3, 12))
    np.save(directory / "keys.npy", np.array([f"image {number}" for number in range(12)]))
    logits = generator.normal(0, 3, (12, 10)).astype("float32")
    np.save(directory / "logits.npy", logits)
    teachers.StoredTeacher.from_outputs(logits, directory / "teacher.store", name="logits")
    teachers.StoredTeacher.from_outputs(logits, directory / "keyed.store", keys=np.arange(12))
    (directory / "labels.txt").write_text("Katze\nHund\nMäuse\n", encoding="utf-8")
    tflite.convert(student, "int8", images).save(directory / "model.tflite")
    metadata = tflite.android.Metadata(("cat", "dog", "mouse"), mean=(0.0,), std=(255.0,))
    labeled = tflite.android.add_metadata(tflite.convert(student), metadata)
    labeled.save(directory / "labeled.tflite")
    return directory


@dataclass
class Ending:
    """How a command ended."""

    code: int
    output: str
    errors: str
    megabytes: float


@dataclass
class Program:
    """Runs commands in a process of its own, and a new one where that has crashed."""

    process: subprocess.Popen | None = field(default=None)

    def __call__(self, arguments, directory):
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, HERE / "_program.py"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                # Who sets it sees what TensorFlow writes, between the lines of the command.
                env={key: value for key, value in os.environ.items() if key != LOG_LEVEL},
            )
        task = {"arguments": [str(argument) for argument in arguments], "directory": str(directory)}
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            answered = selector.select(SECONDS)
        line = self.process.stdout.readline() if answered else ""
        if line:
            return Ending(**json.loads(line))
        reason = f"no answer in {SECONDS} seconds" if not answered else "a crash"
        code = self.stop()
        return Ending(code or -1, "", reason, 0.0)

    def stop(self):
        """End the process."""
        if self.process is None:
            return None
        self.process.stdin.close()
        try:
            return self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            self.process.stdout.close()
            self.process = None


@pytest.fixture(scope="session")
def keras_kd_program():
    """Runs `keras-kd` with arguments in a directory."""
    program = Program()
    yield program
    program.stop()
