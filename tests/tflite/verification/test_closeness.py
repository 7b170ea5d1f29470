import keras
import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite.conversion import forms
from keras_kd.tflite.conversion.converter import run_converter
from keras_kd.tflite.conversion.forms import Options
from keras_kd.tflite.student import Signature
from keras_kd.tflite.verification.closeness import check_close
from keras_kd.tflite.verification.differences import measure_differences
from keras_kd.tflite.verification.verification import Verification

FORMS = ["float32", "float16", "dynamic_int8", "int8", "int16x8", "int4"]
ROUNDED = FORMS[2:]
# Relative to the values of a tensor: what rounding to these forms costs in a small network.
ERRORS = {
    "float32": 1e-6, "float16": 1e-3, "dynamic_int8": 0.02, "int8": 0.03, "int16x8": 0.02,
    "int4": 0.2,
}  # fmt: skip
WRONG = "are not those of the student"


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def kinds():
    """What students of many kinds compute: they must never be refused for rounding."""
    random = np.random.default_rng(0)
    normal = random.normal(size=(64, 10))
    return {
        "logits": normal,
        "probabilities": softmax(8 * normal),
        "nearly constant probabilities": softmax(0.01 * normal),
        "constant probabilities": softmax(0 * normal),
        "a probability": 1 / (1 + np.exp(-normal[:, :1])),
        "a probability of always 0.5": 0.5 + 1e-4 * normal[:, :1],
        "an embedding": normal / np.linalg.norm(normal, axis=-1, keepdims=True),
        "an embedding far from zero": 50 + normal,
        "prices": np.exp(12 + normal[:, :1]),
        "zeros": 0 * normal,
        "one example": normal[:1],
        "one number": normal[:1, :1],
        "two examples": softmax(normal[:2]),
        "pixels": random.normal(size=(8, 6, 6, 3)),
    }


KINDS = kinds()


def verification_of(received, expected, step=0.0, data="given", only_rounded=None):
    examples = {"index": np.arange(len(expected))}
    outputs = measure_differences(
        lambda batch: {"output": received[batch["index"]]},
        lambda batch: {"output": expected[batch["index"]]},
        examples,
        {"output": step},
        rounded=None
        if only_rounded is None
        else lambda batch: {"output": only_rounded[batch["index"]]},
    )
    return Verification(len(expected), data, 0, 0, 0, None, None, None, outputs, None)


def rounded(values, form):
    """As a file of this form may return them: with noise, in steps where it ends in integers."""
    noise = np.random.default_rng(1).normal(size=values.shape)
    noisy = values + ERRORS[form] * values.std(axis=-1, keepdims=True) * noise
    noisy = noisy + ERRORS[form] / 8 * np.ptp(np.append(values, 0)) * noise
    if form not in ("int8", "int16x8"):
        return noisy, 0.0
    step = max(np.ptp(np.append(values, 0)), 1e-9) / (255 if form == "int8" else 65535)
    return np.round(noisy / step) * step, step


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_rounding_is_not_refused(kind, form):
    received, step = rounded(KINDS[kind], form)
    check_close(verification_of(received, KINDS[kind], step), form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["logits", "probabilities", "a probability", "pixels"])
def test_what_computes_something_else_is_refused(kind, form):
    values = KINDS[kind]
    step = rounded(values, form)[1]
    others = {
        "examples in another order": values[::-1],
        "outputs in another order": np.roll(values, 1, axis=-1),
        "nothing": np.zeros_like(values),
        "the mean": np.full_like(values, values.mean()),
        "the opposite": -values,
    }
    if values.shape[-1] == 1:
        del others["outputs in another order"]
    for other in others.values():
        with pytest.raises(ValueError, match=WRONG):
            check_close(verification_of(other, values, step), form)


@pytest.mark.parametrize("form", FORMS[:-1])
def test_a_few_large_values_do_not_hide_the_others(form):
    values = KINDS["prices"] ** 2
    with pytest.raises(ValueError, match=WRONG):
        check_close(verification_of(values[::-1], values), form)


@pytest.mark.parametrize("form", FORMS)
def test_few_values_are_no_evidence_unless_they_are_nan(form):
    values = KINDS["logits"].reshape(-1, 1)
    check_close(verification_of(-values[:15], values[:15]), form)
    with pytest.raises(ValueError, match="is NaN"):
        check_close(verification_of(np.nan * values[:1], values[:1]), form)
    with pytest.raises(ValueError, match=WRONG):
        check_close(verification_of(-values[:16], values[:16]), form)


@pytest.mark.parametrize("form", ["float32", "float16"])
@pytest.mark.parametrize("kind", ["nearly constant probabilities", "an embedding far from zero"])
def test_floats_tell_apart_what_hardly_varies(kind, form):
    values = KINDS[kind] if form == "float32" else (KINDS[kind] - KINDS[kind].mean()) + 0.1
    with pytest.raises(ValueError, match=WRONG):
        check_close(verification_of(values[::-1], values), form)


def test_the_message_says_how_far_off_and_what_to_do():
    values = KINDS["probabilities"]
    with pytest.raises(
        ValueError,
        match=r"output 'output' is off by 0\.\d+ and more .* goes from 0 to 1. "
        r"Expected at most 0\.1\d* for int8: the outputs of this file are not .* calibrate on",
    ):
        check_close(verification_of(values[::-1], values, 1 / 256), "int8")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_single_nan_is_refused(form, value):
    values = KINDS["logits"].copy()
    values[3, 4] = value
    for received, expected in ((values, KINDS["logits"]), (KINDS["logits"], values)):
        with pytest.raises(ValueError, match="is NaN or infinite where the student's is not"):
            check_close(verification_of(received, expected), form)
    check_close(verification_of(values, values), form)


@pytest.mark.parametrize("form", FORMS)
def test_a_decision_in_a_few_examples_may_fall_the_other_way(form):
    received = KINDS["logits"].copy()
    received[:6] = -received[:6]
    check_close(verification_of(received, KINDS["logits"]), form)
    received[6:8] = -received[6:8]
    with pytest.raises(ValueError, match=WRONG):
        check_close(verification_of(received, KINDS["logits"]), form)


def test_numbers_of_classes_count_as_they_are_in_floats_only():
    classes = np.arange(40) % 7
    for form in ROUNDED:
        check_close(verification_of(classes[::-1], classes), form)
    for form in ("float32", "float16"):
        check_close(verification_of(classes, classes), form)
        with pytest.raises(ValueError, match=WRONG):
            check_close(verification_of(classes[::-1], classes), form)


def test_random_data_are_no_evidence_against_what_was_calibrated_on_others():
    values = KINDS["logits"]
    verification = verification_of(np.clip(values, 0, 0.1), values, data="random")
    for form in ("int8", "int16x8"):
        check_close(verification, form)
    for form in ("float32", "float16", "dynamic_int8", "int4"):
        with pytest.raises(ValueError, match=WRONG):
            check_close(verification, form)


def test_what_rounding_does_not_explain():
    values = KINDS["logits"]
    noise = 0.02 * np.random.default_rng(2).normal(size=values.shape)
    judged = {"step": 0.02, "only_rounded": values + noise}
    check_close(verification_of(values - noise, values, **judged), "int8")
    # A step, and that rounding is only so good a guess.
    check_close(verification_of(values + 0.019, values, **judged), "int8")
    check_close(verification_of(values + 1.9 * noise, values, **judged), "int8")
    # Of a tenth of the examples anything may be beyond what was calibrated.
    some = values - noise
    some[:6] = np.clip(some[:6], -0.5, 0.5)
    check_close(verification_of(some, values, **judged), "int8")
    with pytest.raises(ValueError, match=r"output 'output' is off by .* rounding explains 0.02"):
        check_close(verification_of(values + 4 * noise, values, **judged), "int8")
    one = values - noise
    one[:, 3] += 0.1
    with pytest.raises(ValueError, match="channel 3 of the output 'output' is off by"):
        check_close(verification_of(one, values, **judged), "int8")
    # A form that is not told has its tolerance alone.
    check_close(verification_of(values + 4 * noise, values, step=0.02), "int8")


def test_every_output_is_judged_by_itself():
    small, large = KINDS["logits"], 1e6 * KINDS["logits"]
    outputs = measure_differences(
        lambda batch: {"large": large[batch["index"]], "small": small[::-1][batch["index"]]},
        lambda batch: {"large": large[batch["index"]], "small": small[batch["index"]]},
        {"index": np.arange(64)},
        {"large": 0.0, "small": 0.0},
    )
    verification = Verification(64, "given", 0, 0, 0, None, None, None, outputs, None)
    with pytest.raises(ValueError, match="output 'small' is off"):
        check_close(verification, "int4")


def test_an_unknown_form():
    values = KINDS["logits"]
    with pytest.raises(ValueError, match=r"quantization='int2'.*'int16x8'"):
        check_close(verification_of(values, values), "int2")


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize("kind", ["sequential", "several inputs and outputs"])
@pytest.mark.parametrize("form", ["float32", "int8"])
def test_files_of_untrained_students_pass_and_those_of_others_do_not(make_student, kind, form):
    student, data = make_student(kind)
    model = tflite.convert(student, form, data if form == "int8" else None)
    check_close(tflite.verify(model, student, data), form)
    one = {k: v[:1] for k, v in data.items()} if isinstance(data, dict) else data[:1]
    check_close(tflite.verify(model, student, one), form)
    other = keras.models.clone_model(student)
    with pytest.raises(ValueError, match=WRONG):
        check_close(tflite.verify(model, other, data), form)


def test_numbers_that_float16_cannot_hold():
    student = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(64), keras.layers.Dense(1),
         keras.layers.Rescaling(1.0, 200_000.0)]
    )  # fmt: skip
    x = np.random.default_rng(0).normal(size=(20, 8)).astype("float32")
    check_close(tflite.verify(tflite.convert(student), student, x), "float32")
    with pytest.raises(ValueError, match=r"for float16: .*up to 65504"):
        check_close(tflite.verify(tflite.convert(student, "float16"), student, x), "float16")


@pytest.mark.slow
def test_what_the_converter_makes_of_a_bidirectional_lstm_in_int8():
    from keras_kd.compression import to_tf_keras

    keras.utils.set_random_seed(0)
    layer = keras.layers.Bidirectional(keras.layers.LSTM(4))
    student = to_tf_keras(keras.Sequential([keras.Input((5, 3)), layer]))
    x = np.random.default_rng(0).random((64, 5, 3), np.float32)
    # `convert` knows of it and does not get this far.
    signature = Signature(student)
    content = run_converter(signature, Options(forms.FORMS["int8"]), {"input": x})
    with pytest.raises(ValueError, match=WRONG):
        check_close(tflite.verify(tflite.TFLiteModel(content), student, x), "int8")
