"""A search in a process of its own, to be killed: teacher, directory and data from the caller."""

import sys

import keras
import numpy as np

import keras_kd


def arguments(data):
    """What the test and this program call with."""
    return {
        "validation_data": (data["x_val"], data["y_val"]),
        "device": keras_kd.devices.Device(flash=60_000, ram="8 KB"),
        "trials": 3,
        "finalists": 1,
        "epochs": 3,
        "batch_size": 32,
    }


def main():
    teacher_path, data_path, directory = sys.argv[1:]
    teacher = keras.models.load_model(teacher_path)
    with np.load(data_path) as data:
        keras_kd.fit_to_device(
            teacher, (data["x"], data["y"]), directory=directory, **arguments(data)
        )


if __name__ == "__main__":
    main()
