import math
import sys
from dataclasses import dataclass
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from keras_kd._tables import Report, Table, aligned, row_named


def test_words_begin_at_the_left_and_numbers_end_at_the_right():
    table = aligned(["layer", "weights"], [["conv", "1 000"], ["embedding", "7"]])
    assert table.splitlines() == [
        "layer      weights",
        "conv         1 000",
        "embedding        7",
    ]


def test_a_last_column_of_words_leaves_no_spaces_behind():
    table = aligned(["layer", "note"], [["conv", ""], ["dense", "left alone"]], left=2)
    assert table.splitlines()[1:] == ["conv", "dense  left alone"]


def test_a_table_without_rows_is_its_header():
    assert aligned(["layer"], []) == "layer"


def test_rows_are_found_by_name():
    rows = [SimpleNamespace(name="teacher"), SimpleNamespace(name="student")]
    assert row_named(rows, "student") is rows[1]
    with pytest.raises(KeyError, match=r"the name 'other'.*one of 'teacher', 'student'"):
        row_named(rows, "other")


@dataclass(frozen=True)
class _Layers(Report):
    weights: dict
    lost: float = math.nan

    def _parts(self):
        rows = [[name, f"{count:,}"] for name, count in self.weights.items()]
        return [Table(["layer", "weights"], rows), "", "a < b & c"]

    def _records(self):
        return [{"layer": name, "weights": count} for name, count in self.weights.items()]


def test_a_report_prints_its_parts():
    report = _Layers({"conv": 1000, "dense": 7})
    assert str(report).splitlines() == [
        "layer  weights",
        "conv     1,000",
        "dense        7",
        "",
        "a < b & c",
    ]


def test_a_report_in_a_notebook_is_html_with_the_same_cells():
    html = _Layers({"<conv>": 1000, "dense": 7})._repr_html_()
    table, text = ElementTree.fromstring(f"<div>{html}</div>")
    cells = [[cell.text for cell in row] for row in table]
    assert cells == [["layer", "weights"], ["<conv>", "1,000"], ["dense", "7"]]
    assert [cell.attrib["style"] for cell in table[1]] == ["text-align: left", "text-align: right"]
    assert text.text == "a < b & c"


def test_a_report_for_programs():
    assert _Layers({"conv": 1000}).to_dict() == {"weights": {"conv": 1000}, "lost": None}


def test_a_report_as_a_data_frame():
    pytest.importorskip("pandas", reason="needs the `dev` extra")
    frame = _Layers({"conv": 1000, "dense": 7}).to_dataframe()
    assert list(frame["layer"]) == ["conv", "dense"]
    assert frame["weights"].sum() == 1007


def test_a_data_frame_without_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"without pandas.*pip install pandas"):
        _Layers({}).to_dataframe()
