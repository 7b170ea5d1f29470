import io
import json
import os

import pytest
from keras_kd.evaluation.table import print_table
from rich.console import Console

from keras_kd.evaluation import Comparison, Figure, Highlight, Measurement, Page


@pytest.fixture
def comparison():
    teacher = Measurement("teacher", 0.991, 0.9905, (1.0, 0.98), 1.0, 0.0, 400_000, 0.0)
    student = Measurement(
        "student <small>", 0.97, 0.968, (0.96, float("nan")), 0.975, 0.08, 6_000, 0.8,
        bytes=11_392, compressed_bytes=4_084, latency_microseconds=8.6, arena_bytes=4_720,
    )  # fmt: skip
    return Comparison("digits", 2_000, ("zero", "one"), (teacher, student))


def test_rows_by_name(comparison):
    assert comparison["teacher"].accuracy == 0.991
    with pytest.raises(KeyError, match="Expected one of 'teacher', 'student <small>'"):
        comparison["pupil"]


def test_the_text_has_every_number_and_a_dash_where_there_is_none(comparison):
    lines = str(comparison).splitlines()
    assert lines[0].strip() == "digits: 2,000 test images"
    teacher, student = (line.split() for line in lines if "00" in line and ":" not in line)
    assert teacher == ["teacher", "99.10", "99.05", "100.00", "400,000", "0", *"----"]
    assert student[2:] == [
        "97.00", "96.80", "97.50", "6,000", "80", "11,392", "4,084", "8.6", "4,720",
    ]  # fmt: skip


def test_a_narrow_console_cuts_nothing(comparison):
    text = io.StringIO()
    print_table(comparison, Console(file=text, width=40, color_system=None))
    assert text.getvalue() == str(comparison)


def test_columns_without_a_value_are_left_out():
    row = Measurement("student", 0.5, 0.5, (0.5,))
    text = str(Comparison("digits", 10, ("zero",), (row,)))
    assert "accuracy" in text
    assert "arena" not in text


def test_json_holds_everything_and_is_strict(comparison, tmp_path):
    assert comparison.save_json(str(tmp_path / "results.json")) == tmp_path / "results.json"

    def refuse(constant):
        raise AssertionError(constant)

    text = (tmp_path / "results.json").read_text()
    loaded = json.loads(text, parse_constant=refuse)
    assert loaded == comparison.to_dict()
    assert loaded["rows"][1]["bytes"] == 11_392
    assert loaded["rows"][1]["accuracy_per_class"] == [0.96, None]


def test_the_report_needs_no_other_file_and_escapes_names(comparison, tmp_path):
    page = Page(
        title="A & B",
        introduction="Less < more",
        highlights=[Highlight("97 %", "of everything")],
        figures=[Figure("A plot", "How to read it.", "<svg><g/></svg>")],
        notes=["A note."],
    )
    comparison.save_report(tmp_path / "report.html", page)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<title>A &amp; B</title>" in html
    assert "student &lt;small&gt;" in html
    assert "<svg><g/></svg>" in html
    for text in ("Less &lt; more", "97 %", "A plot", "How to read it.", "A note.", "11,392"):
        assert text in html
    for elsewhere in ("http:", "https:", "<script", "<link", "@import", "url("):
        assert elsewhere not in html


def test_the_page_made_by_default_compares_the_first_with_the_last(comparison, tmp_path):
    path = comparison.save_report(str(tmp_path / "report.html"))
    assert path == tmp_path / "report.html"
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    # There is one file only: nothing to compare its size with.
    assert html.count("<svg") == 2
    assert "Accuracy over size" in html
    assert "“teacher” and “student &lt;small&gt;”" in html


def test_a_report_that_fails_leaves_what_was_there(comparison, tmp_path):
    (tmp_path / "report.html").write_text("old")
    with pytest.raises(Exception, match="no attribute"):
        comparison.save_report(tmp_path / "report.html", Page("t", figures=[object()]))
    assert (tmp_path / "report.html").read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]
