"""From a teacher and a device to the best student that fits, on real digits.

    python examples/fit_to_device.py --flash "64 KB" --ram "8 KB" --output firmware

Trains a teacher of 105,050 weights, which takes 169 KB of flash in int8 with TensorFlow Lite Micro
and its kernels, and searches for a student that fits. Prints every candidate, with what its file
takes and how far off those are that do not fit, and the code that makes the winner again. Expect a
file of about 11 KB whose accuracy is less than a point below the teacher's. Repeat an interrupted
call to resume it. Needs the extra `micro`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras

import keras_kd
from keras_kd.quickstart.training import Training


def main(argv: list[str] | None = None) -> keras_kd.search.FitResult:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flash", default="64 KB")
    parser.add_argument("--ram", default="8 KB")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--teacher-epochs", type=int, default=6)
    parser.add_argument("--images", type=int, help="use only so many training images")
    parser.add_argument("--max-minutes", type=float)
    parser.add_argument("--output", type=Path, default=Path("firmware"))
    options = parser.parse_args(argv)
    digits = keras_kd.data.load_sample().first(options.images)
    # The last sixth chooses the student; the test images have no part in that.
    cut = len(digits.x_train) * 5 // 6
    train = digits.x_train[:cut], digits.y_train[:cut]

    teacher_file = options.output.with_name("teacher.keras")
    if not teacher_file.exists():
        Training(digits.first(cut), seed=0).teacher(options.teacher_epochs).save(teacher_file)
    teacher = keras.models.load_model(teacher_file)

    result = keras_kd.fit_to_device(
        teacher,
        train,
        validation_data=(digits.x_train[cut:], digits.y_train[cut:]),
        device=keras_kd.devices.Device(flash=options.flash, ram=options.ram),
        trials=options.trials,
        epochs=options.epochs,
        max_minutes=options.max_minutes,
        directory=options.output.with_name("search"),
    )
    print(result)
    outputs = result.model.predict(digits.x_test)
    accuracy = keras_kd.metrics.accuracy(outputs, digits.y_test)
    print(f"on {len(digits.y_test)} test images: {accuracy:.2%}")
    for path in result.save(options.output, "digits"):
        print("wrote", path)
    return result


if __name__ == "__main__":
    main()
