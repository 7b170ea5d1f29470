"""Importing TF-MOT leaves the rest of the process alone."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, keras, tensorflow as tf
import keras_kd.compression._tfmot
print(os.environ.get("TF_USE_LEGACY_KERAS"), tf.keras.Model.__module__.split(".")[0])
"""


def after_the_import(**variables):
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


# `tests/test_architecture.py` has it in a process that other checks share.
@pytest.mark.slow
def test_tf_keras_stays_keras_3_here_and_in_child_processes():
    assert after_the_import() == ["None", "keras"]


@pytest.mark.slow
def test_who_has_asked_for_keras_2_keeps_it():
    assert after_the_import(TF_USE_LEGACY_KERAS="1") == ["1", "tf_keras"]
