"""A student's settings as Python code that trains it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_kd.devices import Device
from keras_kd.search.forms import Proposal
from keras_kd.search.teaching import FINE_TUNING_SHARE, Recipe

_ENDED_EARLY = "# max_minutes ended trainings of the search early; here they run to the end."


def code_of(
    proposal: Proposal,
    trainings: Sequence[tuple[int, int]],
    last_seed: int,
    recipe: Recipe,
    device: Device,
    examples: int,
    *,
    is_named: bool,
    is_aware: bool,
    with_examples: bool,
    given: str = "x_train, y_train",
    prepared: Sequence[str] = (),
    ended_early: bool = False,
) -> str:
    """Python code for a teacher and training data that are there.

    Args:
        proposal: the student.
        trainings: epochs and seed of each training in float32.
        last_seed: of the trainings with zeros and with quantizers.
        recipe: how students are trained.
        device: where the file runs.
        examples: from how many the ranges are read.
        is_named: whether `x_train` is a dict of arrays by input name.
        is_aware: whether the last training is quantization-aware.
        with_examples: whether the conversion reads ranges from examples.
        given: the names of the training data as they were given.
        prepared: lines that make x_train, as students are trained on it, of what was given.
        ended_early: whether time was over in one of the trainings.
    """
    loss = recipe.loss
    own = recipe.distillation_losses is not None
    taught = "stored, student" + (", distillation_losses" if own else "")
    steps = [
        f"teach(student, {epochs}, {recipe.learning_rate:g}, {seed})" for epochs, seed in trainings
    ]
    epochs, seed = recipe.fine_tuning_epochs, last_seed
    if device.compressed:
        steps += [
            f"pruned = keras_kd.compression.prune(student, {recipe.sparsity:g})",
            f"teach(pruned, {epochs}, {recipe.learning_rate:g}, {seed})",
            "student = keras_kd.compression.strip(pruned)",
        ]
    some = "examples" if is_named else f"x_train[:{examples}]"
    named = f"examples = {{name: array[:{examples}] for name, array in x_train.items()}}"
    last = f"keras_kd.compression.quantize_aware(student, {some})"
    if is_aware:
        rate = recipe.learning_rate * FINE_TUNING_SHARE
        steps += [f"student = {last}", f"teach(student, {epochs}, {rate:g}, {seed})"]
    data = f", {some}" if with_examples else ""
    lines = [
        "import keras",
        "import keras_kd",
        "",
        f"# teacher, {given}{_also_given(loss, own)}: as they were given to fit_to_device.",
        *([_ENDED_EARLY] if ended_early else []),
        *prepared,
        proposal.code(),
        "stored = keras_kd.teachers.StoredTeacher.create(",
        '    teacher, (x_train, y_train), "teacher.store", dtype="float32"',
        ")",
        *([named] if is_named else []),
        "",
        "",
        "def teach(student, epochs, learning_rate, seed):",
        f"    keras.utils.set_random_seed(({recipe.seed} + seed) % 2**32)",
        f"    steps = epochs * -(-len(y_train) // {recipe.batch_size})",
        "    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)",
        "    distiller = keras_kd.Distiller(",
        f"        {taught}, student_loss_weight={recipe.student_loss_weight:g}",
        "    )",
        f"    distiller.compile(keras.optimizers.Adam(rate), {_loss(loss)})",
        f"    data = stored.join((x_train, y_train), {recipe.batch_size}, "
        f"seed={recipe.seed} + seed)",
        "    distiller.fit(data, epochs=epochs, shuffle=False)",
        "",
        "",
        *steps,
        f'model = keras_kd.tflite.convert(student, "int8"{data}, target="{device.target}")',
        "",
    ]
    return "\n".join(lines)


def _also_given(loss: Any, own: bool) -> str:
    names = ["loss"] if _loss(loss) == "loss" else []
    names += ["distillation_losses"] if own else []
    return "".join(f", {name}" for name in names)


def _loss(loss: Any) -> str:
    """A loss as code, or the name of a variable where it is a user's own."""
    if isinstance(loss, str):
        return repr(loss)
    name = type(loss).__name__
    if getattr(keras.losses, name, None) is not type(loss):
        return "loss"
    config = loss.get_config()
    default = type(loss)().get_config()
    others = {key: value for key, value in config.items() if value != default.get(key)}
    options = ", ".join(f"{key}={value!r}" for key, value in others.items())
    return f"keras.losses.{name}({options})"
