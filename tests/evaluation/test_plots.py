import re
from xml.etree import ElementTree

import numpy as np
import pytest

from keras_kd.evaluation import Column, Measurement, plots
from keras_kd.evaluation.plots import log_ticks, pareto_front
from keras_kd.metrics import Estimate

# A command prints the warnings of this package.
pytestmark = pytest.mark.filterwarnings("error")
CLASSES = ("zero", "one & two")
ACCURACY = Column(
    "accuracy", "accuracy", "%", lambda share: f"{100 * share:.2f}", "right ones", True, True
)
ERROR = Column("mae", "MAE", "", lambda value: f"{value:.4g}", "mean absolute error")
SIZE = Column("bytes", "file", "bytes", lambda number: f"{number:,}", "size of the .tflite")
TIME = Column("latency_microseconds", "latency", "µs", lambda number: f"{number:.1f}", "time")


def measurement(name, accuracy, bytes_, difference=None):
    gained = difference and Estimate(difference, difference - 0.01, difference + 0.015)
    return Measurement(
        name,
        {
            "accuracy": Estimate(accuracy, accuracy - 0.01, accuracy + 0.005, gained),
            "mae": Estimate(1 - accuracy, 0.0, 1.0),
        },
        per_class=(accuracy, accuracy - 0.01),
        confusion=((9, 1), (0, 10)),
        reliability=((4, 0.7, 0.75), (6, 0.95, 0.9)),
        parameters=bytes_ // 4,
        bytes=bytes_,
        compressed_bytes=bytes_ // 2,
        latency_microseconds=bytes_ / 1000,
    )


TEACHER = measurement("teacher", 0.99, 1_000_000)
ALONE = measurement("student alone", 0.96, 20_000)
DISTILLED = measurement("student <distilled>", 0.97, 20_000, 0.01)

PLOTS = {
    "size": lambda: plots.quality_over([TEACHER, ALONE, DISTILLED], ACCURACY, SIZE),
    "time": lambda: plots.quality_over([TEACHER, ALONE, DISTILLED], ERROR, TIME),
    "per_class": lambda: plots.per_class(ALONE, DISTILLED, CLASSES, ACCURACY),
    "confusions": lambda: plots.confusions([ALONE, DISTILLED], CLASSES),
    "reliability": lambda: plots.reliability([ALONE, DISTILLED]),
    "share_of_teacher": lambda: plots.share_of_teacher(TEACHER, DISTILLED, [ACCURACY, SIZE]),
    "pictures": lambda: plots.pictures(
        np.arange(128.0).reshape(2, 8, 8), ["student <distilled>", "b"], "two images of 64 pixels"
    ),
    "differences": lambda: plots.differences(ALONE, [DISTILLED], ACCURACY),
}


@pytest.fixture(scope="module", params=PLOTS)
def svg(request):
    return PLOTS[request.param]()


def test_is_one_well_formed_element_with_a_label(svg):
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    assert root.get("role") == "img"
    assert root.get("viewBox")
    assert len(root.get("aria-label")) > 20


def test_takes_ink_and_letters_from_the_page(svg):
    assert "currentColor" in svg
    assert "system-ui" in svg
    assert "DejaVu" not in svg
    assert all(each.startswith("data:image/png") for each in re.findall('href="([^#"]+)', svg))
    assert not re.search(r"(fill|stroke): #(000000|ffffff|123456)", svg)


def test_names_are_text(svg):
    text = "".join(ElementTree.fromstring(svg).itertext())
    assert "student <distilled>" in text


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize("name", PLOTS)
def test_the_same_measurements_give_the_same_bytes(name):
    assert PLOTS[name]() == PLOTS[name]()


def label(svg):
    return ElementTree.fromstring(svg).get("aria-label")


def test_labels_have_the_numbers_in_words():
    assert "student alone 96.00 % at 20,000 bytes" in label(PLOTS["size"]())
    assert "zero 96.0 and 97.0 %" in label(PLOTS["per_class"]())
    assert "student alone takes zero for one & two 1 times" in label(PLOTS["confusions"]())
    assert "90 % right at 95 %" in label(PLOTS["reliability"]())
    assert "student <distilled> +1.00 (+0.00, +2.50)" in label(PLOTS["differences"]())


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (20_000, 30_000, 3),
        (9_000, 11_000, 3),
        (24_000, 24_300, 2),
        (9_744, 421_792, 3),
        (10, 10_000_000, 3),
        (0.5, 3, 2),
        (1, 1e12, 3),
    ],
)
def test_an_axis_has_a_few_round_ticks_also_within_a_decade(low, high, expected):
    ticks = log_ticks(low, high)
    assert expected <= len(ticks) <= 6
    assert all(low <= tick <= high for tick in ticks)
    assert ticks == sorted(set(ticks))


def test_the_ticks_of_sizes_within_a_decade_are_written():
    rows = [measurement("a", 0.9, 20_000), measurement("b", 0.95, 27_000)]
    texts = [
        element.text
        for element in ElementTree.fromstring(plots.quality_over(rows, ACCURACY, SIZE)).iter()
        if element.text and element.text.endswith(" kB")
    ]
    assert len(texts) >= 2
    assert set(texts) <= {"20 kB", "22 kB", "22.5 kB", "24 kB", "25 kB", "26 kB", "27.5 kB"}


def test_one_file_alone():
    assert "20 kB" in plots.quality_over([ALONE], ACCURACY, SIZE)


def test_the_pareto_front_has_what_no_other_beats():
    rows = [
        measurement("large", 0.99, 100),
        measurement("beaten", 0.95, 60),
        measurement("middle", 0.96, 50),
        measurement("same, worse", 0.90, 50),
        measurement("small", 0.80, 10),
        measurement("larger, as good", 0.99, 200),
    ]
    names = [row.name for row in pareto_front(rows, ACCURACY, SIZE)]
    assert names == ["small", "middle", "large"]
    # Of an error less is better.
    assert [row.name for row in pareto_front(rows, ERROR, SIZE)] == names


def test_what_has_no_file_has_no_place():
    no_file = Measurement("student", {"accuracy": Estimate(0.9, 0.8, 0.95)})
    with pytest.raises(ValueError, match=r"without bytes and accuracy.*compare converted models"):
        plots.quality_over([no_file], ACCURACY, SIZE)
