import dataclasses
import json
import math
import os
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from _disk import files_of_at_most

from keras_kd.evaluation import (
    Comparison,
    Disagreement,
    Figure,
    Highlight,
    Measurement,
    Page,
    save_report,
)
from keras_kd.evaluation.report import figure_of_disagreements
from keras_kd.metrics import Estimate

NAN = float("nan")


def row(name, accuracy, difference=None, **properties):
    quality = {
        "accuracy": Estimate(accuracy, accuracy - 0.01, accuracy + 0.005, difference),
        "f1": Estimate(accuracy - 0.005, accuracy - 0.02, accuracy),
        "ece": Estimate(0.02, 0.01, 0.03),
        "agreement": Estimate(0.975, 0.96, 0.98),
    }
    return Measurement(
        name,
        quality,
        per_class=(accuracy, NAN),
        confusion=((9, 1), (0, 0)),
        reliability=((4, 0.7, 0.75), (6, 0.95, 0.9)),
        **properties,
    )


@pytest.fixture
def comparison():
    teacher = row("teacher", 0.991, parameters=400_000, sparsity=0.0)
    student = row(
        "student <small>", 0.97, Estimate(-0.021, -0.03, -0.01), parameters=6_000, sparsity=0.8,
        bytes=11_392, compressed_bytes=4_084, latency_microseconds=8.6, arena_bytes=4_720,
    )  # fmt: skip
    return Comparison(
        "digits",
        2_000,
        {"": "classification"},
        "teacher",
        "teacher",
        ("zero", "one"),
        (teacher, student),
        {"processor": "A CPU", "cores": 2, "system": "Linux", "python": "3.11.9",
         "packages": {"keras": "3.15.1"}},
    )  # fmt: skip


def test_rows_by_name(comparison):
    assert comparison["teacher"].value("accuracy") == 0.991
    assert comparison["teacher"].value("parameters") == 400_000
    assert comparison["teacher"].value("auc") is None
    with pytest.raises(KeyError, match="Expected one of 'teacher', 'student <small>'"):
        comparison["pupil"]


def test_the_text_has_every_number_and_a_dash_where_there_is_none(comparison):
    title, header, units, teacher, student = str(comparison).splitlines()
    assert title == "digits: 2,000 test examples"
    assert header.split() == [
        "model", "accuracy", "95", "%", "difference", "F1", "agrees", "weights", "zeros", "file",
        "gzip", "latency", "arena",
    ]  # fmt: skip
    assert "to teacher" in units
    assert teacher.split() == [
        "teacher", "99.10", "98.1", "-", "99.6", "-", "98.60", "97.50", "400,000", "0", *"----",
    ]  # fmt: skip
    assert student.split()[2:] == [
        "97.00", "96.0", "-", "97.5", "-2.10", "(-3.00,", "-1.00)", "96.50", "97.50", "6,000", "80",
        "11,392", "4,084", "8.6", "4,720",
    ]  # fmt: skip


def test_columns_without_a_value_are_left_out():
    only = Measurement("student", {"mae": Estimate(1234.5678, NAN, NAN)})
    comparison = Comparison("", 10, {"": "regression"}, "student", None, (), (only,))
    title, header, _, cells = str(comparison).splitlines()
    assert title == "10 test examples"
    assert header.split() == ["model", "MAE", "95", "%"]
    assert cells.split() == ["student", "1235", "-"]
    # Sizes alone, without anything measured on the outputs.
    sizes = Comparison("", 10, {"": "regression"}, "a", None, (), (Measurement("a", bytes=5),))
    assert str(sizes).splitlines()[1].split() == ["model", "file"]
    assert sizes.best() is None


def test_the_best_is_that_with_the_smallest_error():
    rows = tuple(
        Measurement(name, {"mae": Estimate(value, NAN, NAN)})
        for name, value in (("a", 2.0), ("b", 1.0), ("c", NAN))
    )
    comparison = Comparison("", 10, {"": "regression"}, "a", None, (), rows)
    assert comparison.best().name == "b"


def test_json_holds_everything_and_is_strict(comparison, tmp_path):
    assert comparison.save_json(str(tmp_path / "results.json")) == tmp_path / "results.json"

    def refuse(constant):
        raise AssertionError(constant)

    text = (tmp_path / "results.json").read_text()
    loaded = json.loads(text, parse_constant=refuse)
    assert loaded == comparison.to_dict()
    student = loaded["rows"][1]
    assert student["bytes"] == 11_392
    assert student["per_class"] == [0.97, None]
    assert student["quality"]["accuracy"]["difference"] == {
        "value": -0.021, "low": -0.03, "high": -0.01, "difference": None
    }  # fmt: skip
    assert loaded["machine"]["processor"] == "A CPU"


def test_a_full_disk_keeps_the_report_before(comparison, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    with (
        files_of_at_most(5_000),
        pytest.raises(OSError, match=f"too large' while writing '{path}'. Expected a disk with"),
    ):
        save_report(comparison, path)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


def test_the_report_needs_no_other_file_and_escapes_names(comparison, tmp_path):
    page = Page(
        title="A & B",
        introduction="Less < more",
        highlights=[Highlight("97 %", "of everything")],
        figures=[Figure("A plot", "How to read it.", "<svg><g/></svg>")],
        notes=["A note."],
    )
    assert save_report(comparison, str(tmp_path / "report.html"), page) == tmp_path / "report.html"
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<title>A &amp; B</title>" in html
    assert "student &lt;small&gt;" in html
    assert "<svg><g/></svg>" in html
    for text in ("Less &lt; more", "97 %", "A plot", "How to read it.", "A note.", "11,392"):
        assert text in html
    for text in ("96.0 - 97.5", "-2.10", "-3.00 to -1.00", "A CPU, 2 cores", "keras 3.15.1"):
        assert text in html
    for elsewhere in ("http:", "https:", "<script src", "<link", "@import", "url(", "src="):
        assert elsewhere not in html


def test_a_difference_that_may_be_chance_says_so(comparison, tmp_path):
    clear = save_report(comparison, tmp_path / "clear.html").read_text(encoding="utf-8")
    assert "<small>may be chance" not in clear
    teacher, _ = comparison.rows
    chance = row("student", 0.994, Estimate(0.003, -0.006, 0.0125), bytes=20)
    other = Comparison(
        "", 300, {"": "classification"}, "teacher", None, ("0", "1"), (teacher, chance)
    )
    html = save_report(other, tmp_path / "chance.html").read_text(encoding="utf-8")
    assert "-0.60 to +1.25</small><small>may be chance</small>" in html


def test_the_page_made_by_default_compares_the_baseline_with_the_last(comparison, tmp_path):
    html = save_report(comparison, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<title>Models on digits</title>" in html
    for title in (
        "Accuracy over size",
        "Accuracy over latency",
        "Accuracy against “teacher”",
        "“teacher” and “student &lt;small&gt;”",
        "What is taken for what",
        "Confidence and accuracy",
    ):
        assert f"<h2>{title}</h2>" in html
    assert html.count("<svg") == 6
    assert "images" not in html
    titled = save_report(comparison, tmp_path / "report.html", title="For <us>")
    assert "<h1>For &lt;us&gt;</h1>" in titled.read_text(encoding="utf-8")


def test_a_page_without_anything_measured_on_outputs(tmp_path):
    rows = (Measurement("a", bytes=5, compressed_bytes=4, latency_microseconds=1.0),)
    comparison = Comparison("", 10, {"": "regression"}, "a", None, (), rows)
    html = save_report(comparison, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<title>Models side by side</title>" in html
    assert "<svg" not in html
    assert "the smallest file, a" in html


def test_a_report_that_fails_leaves_what_was_there(comparison, tmp_path):
    (tmp_path / "report.html").write_text("old")
    with pytest.raises(Exception, match="no attribute"):
        save_report(comparison, tmp_path / "report.html", Page("t", figures=[object()]))
    assert (tmp_path / "report.html").read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_an_interval_without_ends_is_left_out(comparison):
    column = comparison.measures[0]
    unknown = Measurement("a", {"accuracy": Estimate(0.5, NAN, NAN, Estimate(0.1, NAN, NAN))})
    assert column.interval(unknown) == ""
    assert column.difference(unknown) == "+10.00"
    assert column.text(Measurement("a", {"accuracy": Estimate(math.nan, NAN, NAN)})) == "-"


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_pictures_of_disagreements(comparison, tmp_path, channels):
    x = np.random.default_rng(0).random((30, 9, 8, *channels))
    differ = (Disagreement(3, 0, 0, 1), Disagreement(29, None, 1, 0))
    comparison = dataclasses.replace(comparison, disagreements=differ)
    figure = figure_of_disagreements(comparison, {"image": x} if channels else x)
    root = ElementTree.fromstring(figure.svg)
    assert "true: zero, zero / one; one / zero" in root.get("aria-label")
    text = "".join(root.itertext())
    assert "true: zero" in text
    assert "one / zero" in text
    assert figure.svg.count("<image") == 2
    assert "“teacher” chooses / what “student <small>” chooses" in figure.caption
    html = save_report(comparison, tmp_path / "report.html", x=x).read_text(encoding="utf-8")
    assert "<h2>Where they disagree</h2>" in html
    # Pictures are in the page.
    assert all(link.startswith("data:image/png;base64,") for link in
               re.findall(r'xlink:href="([^#"][^"]*)"', html))  # fmt: skip


@pytest.mark.parametrize("shape", [(30, 8), (30, 4, 4, 1), (30, 9, 8, 2), (30, 9000, 40)])
def test_what_is_no_image_is_not_shown(comparison, shape):
    comparison = dataclasses.replace(comparison, disagreements=(Disagreement(3, 0, 0, 1),))
    assert figure_of_disagreements(comparison, np.broadcast_to(np.float32(0), shape)) is None
    assert figure_of_disagreements(comparison, None) is None
    assert figure_of_disagreements(comparison, {"a": 1, "b": 2}) is None


def test_a_value_that_was_not_measured():
    row = Measurement("student", bytes=7)
    assert row.known("bytes") == 7
    with pytest.raises(ValueError, match="'arena_bytes' of 'student', which was not measured"):
        row.known("arena_bytes")
