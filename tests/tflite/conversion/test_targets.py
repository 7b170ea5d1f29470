import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite import microcontroller
from keras_kd.tflite.conversion import targets
from keras_kd.tflite.conversion.targets import TARGETS


@pytest.mark.parametrize("form", ["float16", "dynamic_int8", "int4"])
def test_what_tflm_refuses_is_refused_for_microcontrollers(form):
    with pytest.raises(ValueError, match=r"Micro refuses the others. To fix it: choose .*'int8'"):
        TARGETS["microcontroller"].check_form(form)


@pytest.mark.parametrize("target", ["android", "web"])
def test_slow_forms_are_warned_of(target):
    with pytest.warns(UserWarning, match=r"int16x8.*XNNPACK has none.*'int8', or 'float16'"):
        TARGETS[target].check_form("int16x8")


@pytest.mark.parametrize("target", ["microcontroller", "web"])
def test_sizes_must_be_known_where_inputs_are_not_resized(target):
    with pytest.raises(ValueError, match=r"'x' of shape \(1, None, 3\).*cannot be resized there"):
        TARGETS[target].check_lengths({"y": (1, 2), "x": (1, None, 3)})
    TARGETS["android"].check_lengths({"x": (1, None, 3)})


def test_a_file_with_integers_at_its_ends_is_not_for_phones(micro_model):
    TARGETS["microcontroller"].check_ends(micro_model)
    for target in ("android", "web"):
        with pytest.raises(ValueError, match=r"image int8\[1, 8, 8, 1\].*MediaPipe and browsers"):
            TARGETS[target].check_ends(micro_model)


@pytest.mark.skipif(not microcontroller.is_installed(), reason="needs tflite-micro")
def test_tflm_runs_the_examples_that_a_file_is_verified_on(student, images, monkeypatch):
    compared = []
    monkeypatch.setattr(targets, "compare_stored", lambda _, stored: compared.append(stored))
    model = tflite.convert(
        student, "int8", images, "microcontroller", verification_data=images[:20]
    )
    [stored] = compared
    expected = model.quantize_inputs(images[:20])["image"]
    np.testing.assert_array_equal(stored["image"][8:], expected)
    assert stored["image"][:8].min() == -128
    assert stored["image"][:8].max() == 127
