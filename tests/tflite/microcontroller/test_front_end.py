"""Log-mel features in C++: compiled here, number by number those of Python."""

import ctypes
import re
import runpy
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.sound import LogMel
from keras_kd.tflite import microcontroller
from keras_kd.tflite.microcontroller.front_end import error_bound, front_end_source

REFERENCE = runpy.run_path(str(Path(__file__).parents[2] / "reference" / "sound.py"))
log_mel, signals = REFERENCE["log_mel"], REFERENCE["signals"]
FRAMES = 6
FORMS = [
    {"sample_rate": 8000, "window": 0.03, "hop": 0.02, "mels": 32},
    {"sample_rate": 16000, "window": 0.03, "hop": 0.02, "mels": 40, "high": 7600.0},
    {"sample_rate": 16000, "window": 0.064, "hop": 0.032, "mels": 64, "low": 20.0},
    {"sample_rate": 44100, "window": 0.09, "hop": 0.045, "mels": 80, "low": 20.0},
    # The smallest transform; and bands that reach the constant part and half the sample rate.
    {"sample_rate": 8000, "window": 0.0005, "hop": 0.0005, "mels": 1, "low": 0.0},
    {"sample_rate": 8000, "window": 0.001, "hop": 0.0005, "mels": 2, "low": 0.0, "offset": 1e-8},
]


def write(front_end, folder, name="words", frames=FRAMES):
    """The files, and how many samples they take."""
    for ending, text in zip((".h", ".cc"), front_end_source(front_end, name, frames), strict=True):
        (folder / f"{name}_front_end{ending}").write_text(text)
    return front_end.window_samples + (frames - 1) * front_end.hop_samples


def compiled(folder, compile_strictly, *flags):
    library = folder / f"words{''.join(flags)}.so"
    compile_strictly("-shared", "-fPIC", *flags, folder / "words_front_end.cc", "-o", library)
    functions = ctypes.CDLL(str(library))

    def features(function, clip, shape):
        clip, out = np.ascontiguousarray(clip, "int16"), np.full(shape, np.nan, "float32")
        pointers = (each.ctypes.data_as(ctypes.c_void_p) for each in (clip, out))
        getattr(functions, function)(*pointers)
        return out

    return features


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("flags", [("-O2",), ("-O3", "-march=native", "-ffp-contract=fast")])
def test_the_numbers_are_those_of_python(form, flags, compile_strictly, tmp_path):
    front_end = LogMel(**form)
    samples = write(front_end, tmp_path)
    features = compiled(tmp_path, compile_strictly, *flags)
    clips = signals(samples, front_end.sample_rate)
    options = dict(form)
    exact = log_mel(clips / 32768, options.pop("sample_rate"), **options)
    in_keras = np.asarray(front_end((clips / 32768).astype("float32")))
    shape = FRAMES, front_end.mels
    in_c = np.stack([features("words_features", clip, shape) for clip in clips])
    # What is promised is a worst case, which no clip was found to come near to.
    bound = error_bound(front_end)
    assert np.abs(in_c - exact).max() < min(bound, 2e-4 * np.sqrt(2**-20 / front_end.offset))
    np.testing.assert_allclose(in_c, in_keras, rtol=0, atol=bound)
    # One frame by itself, as a stream computes it.
    start = 2 * front_end.hop_samples
    frame = clips[0, start : start + front_end.window_samples]
    np.testing.assert_array_equal(features("words_frame", frame, shape[1:]), in_c[0, 2])


def test_the_bound_is_written_and_grows_with_what_is_audible():
    front_end = LogMel(16000)
    header, _ = front_end_source(front_end, "words", 49)
    assert f"at most {error_bound(front_end):.2g}, whatever" in header
    assert 0.001 < error_bound(front_end) < 0.02
    fainter = error_bound(LogMel(16000, offset=2**-24))
    assert fainter == pytest.approx(4 * error_bound(front_end), rel=0.05)


def test_the_header_is_for_c_and_the_sizes_are_right(compile_strictly, tmp_path):
    front_end = LogMel(8000, mels=32)
    samples = write(front_end, tmp_path, frames=49)
    assert samples == 7920
    header = (tmp_path / "words_front_end.h").read_text()
    flash = int(re.search(r"take (\d+) bytes of flash", header)[1])
    source = (tmp_path / "words_front_end.cc").read_text()
    floats = len(re.findall(r"-?[\d.e-]+f,", source))
    assert flash == 4 * floats + 2 * 2 * 32
    (tmp_path / "use.c").write_text(
        '#include "words_front_end.h"\n'
        "static int16_t clip[WORDS_CLIP_SAMPLES];\n"
        "static float features[WORDS_CLIP_FEATURES];\n"
        "typedef char as_in_python[WORDS_CLIP_SAMPLES == 7920 && WORDS_FRAMES == 49 ? 1 : -1];\n"
        "int use(void) { words_features(clip, features); return sizeof(as_in_python); }\n"
    )
    compile_strictly(
        "-c", tmp_path / "use.c", "-o", tmp_path / "use.o", compiler="gcc", standard="c99"
    )


def test_it_compiles_for_a_microcontroller(compile_strictly, tmp_path):
    write(LogMel(8000), tmp_path)
    compile_strictly(
        "-c", "-mcpu=cortex-m4", "-mthumb", "-Os", tmp_path / "words_front_end.cc",
        "-o", tmp_path / "words.o", compiler="arm-none-eabi-g++",
    )  # fmt: skip


@pytest.fixture(scope="module")
def spotter():
    """A front end, and a file for features of it in int8."""
    front_end = LogMel(8000, mels=8)
    keras.utils.set_random_seed(0)
    student = keras.Sequential(
        [keras.Input((FRAMES, 8), name="features"), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    clips = signals(240 + 5 * 160, 8000)
    x = np.asarray(front_end((clips / 32768).astype("float32")))
    return front_end, tflite.convert(student, "int8", x, "microcontroller"), clips, x


PROGRAM = """
#include <stdio.h>
#include "words.h"
#include "words_front_end.h"
static const int16_t clips[][WORDS_CLIP_SAMPLES] = {%s};
int main(void) {
  static float features[WORDS_CLIP_FEATURES], scores[WORDS_OUTPUT_0_SIZE];
  if (words_init() != WORDS_OK) return 1;
  for (size_t i = 0; i < sizeof(clips) / sizeof(clips[0]); ++i) {
    words_features(clips[i], features);
    if (words_predict_float(features, scores) != WORDS_OK) return 1;
    for (size_t j = 0; j < WORDS_OUTPUT_0_SIZE; ++j) printf("score %%.9g\\n", (double)scores[j]);
  }
  return 0;
}
"""


@pytest.mark.skipif(not microcontroller.is_installed(), reason="tflite-micro is not installed")
def test_from_samples_to_scores_in_firmware(spotter, run_in_tflm, tmp_path):
    front_end, model, clips, x = spotter
    folder = tmp_path / "words"
    paths = microcontroller.write_project(model, folder, "words", x, front_end=front_end)
    assert {folder / "words_front_end.h", folder / "words_front_end.cc"} < set(paths)
    for file in ("CMakeLists.txt", "words.mk", "zephyr/CMakeLists.txt", "README.md"):
        assert "words_front_end.cc" in (folder / file).read_text(), file
    rows = ",".join(f"{{{','.join(map(str, clip))}}}" for clip in clips)
    printed = run_in_tflm(folder, PROGRAM % rows)
    scores = np.array(re.findall(r"score (\S+)", printed), "float32").reshape(len(clips), 3)
    expected = model.predict(x)
    [output] = model.outputs
    # A feature on the edge between two steps may fall to either side.
    np.testing.assert_allclose(scores, expected, rtol=0, atol=2 * output.scale)
    assert np.mean(scores == expected) > 0.9


@pytest.mark.parametrize(
    ("front_end", "message"),
    [
        (LogMel(8000, mels=16), r"16 mels for a model whose input has the shape \(1, 6, 8\)"),
        ("log-mel", r"front_end='log-mel'.*keras_kd.sound.LogMel\(16000\)"),
    ],
    ids=str,
)
def test_front_ends_that_do_not_fit(spotter, front_end, message, tmp_path):
    with pytest.raises((TypeError, ValueError), match=message):
        microcontroller.write_project(spotter[1], tmp_path / "words", front_end=front_end)
    assert not (tmp_path / "words").exists()
