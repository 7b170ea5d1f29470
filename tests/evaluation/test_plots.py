import re
from xml.etree import ElementTree

import pytest

from keras_kd.evaluation import Measurement, plots

CLASSES = ("zero", "one & two")


def measurement(name, accuracy, bytes_):
    return Measurement(
        name, accuracy, accuracy, (accuracy, accuracy - 0.01),
        parameters=bytes_ // 4, bytes=bytes_, compressed_bytes=bytes_ // 2,
        latency_microseconds=bytes_ / 1000,
    )  # fmt: skip


TEACHER = measurement("teacher", 0.99, 1_000_000)
ALONE = measurement("student alone", 0.96, 20_000)
DISTILLED = measurement("student <distilled>", 0.97, 20_000)

PLOTS = {
    "accuracy_over_size": lambda: plots.accuracy_over_size([TEACHER, ALONE, DISTILLED]),
    "per_class": lambda: plots.per_class(ALONE, DISTILLED, CLASSES),
    "share_of_teacher": lambda: plots.share_of_teacher(TEACHER, DISTILLED),
    "cost": lambda: plots.cost(ALONE, [DISTILLED]),
}


@pytest.fixture(scope="module", params=PLOTS)
def svg(request):
    return PLOTS[request.param]()


def test_is_one_well_formed_element_with_a_label(svg):
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert root.get("viewBox")


def test_takes_ink_and_letters_from_the_page(svg):
    assert "currentColor" in svg
    assert "system-ui" in svg
    assert "DejaVu" not in svg
    assert not re.search(r"(fill|stroke): #(000000|ffffff|123456)", svg)


def test_names_are_text(svg):
    text = "".join(ElementTree.fromstring(svg).itertext())
    assert "student <distilled>" in text


@pytest.mark.parametrize("name", PLOTS)
def test_the_same_measurements_give_the_same_bytes(name):
    assert PLOTS[name]() == PLOTS[name]()


def test_cost_needs_files():
    no_file = Measurement("student", 0.9, 0.9, (0.9, 0.9))
    with pytest.raises(ValueError, match=r"without compressed_bytes.*compare converted models"):
        plots.cost(ALONE, [no_file])
