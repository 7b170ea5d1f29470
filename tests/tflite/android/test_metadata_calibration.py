import pytest

from keras_kd.tflite.android import ScoreCalibration
from keras_kd.tflite.android.metadata import calibration_from_csv

ROWS = [(1.0, 2.0, -0.5), None, (0.5, 3.25, 1e-7, 0.125), None]


def test_the_file_has_a_line_for_each_class():
    calibration = ScoreCalibration(ROWS)
    assert calibration.to_csv() == "1.0,2.0,-0.5\n\n0.5,3.25,1e-07,0.125\n"
    assert len(calibration.to_csv().split("\n")) == 4


def test_round_trip():
    calibration = ScoreCalibration(ROWS, "log", 0.5)
    assert calibration_from_csv(calibration.to_csv(), "log", 0.5) == calibration


def test_integers_become_floats():
    assert ScoreCalibration([[1, 2, 3], None]).sigmoids == ((1.0, 2.0, 3.0), None)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sigmoids": []}, ValueError, "at least one class"),
        ({"sigmoids": [None, None]}, ValueError, "at least one class"),
        ({"sigmoids": [(1, 2)]}, ValueError, r"sigmoids\[0\]=\(1, 2\)"),
        ({"sigmoids": [None, (1, 2, 3, 4, 5)]}, ValueError, r"sigmoids\[1\]"),
        ({"sigmoids": [5]}, ValueError, r"sigmoids\[0\]=5"),
        ({"sigmoids": [(-1, 2, 3)]}, ValueError, "scale of class 0=-1.*at least 0"),
        ({"sigmoids": [(1, float("nan"), 3)]}, ValueError, "slope of class 0=nan"),
        ({"sigmoids": [(1, 2, "3")]}, TypeError, "offset of class 0='3'"),
        ({"sigmoids": ROWS, "transformation": "exp"}, ValueError, "'inverse_logistic'"),
        ({"sigmoids": ROWS, "default_score": None}, TypeError, "default_score=None"),
    ],
)
def test_what_cannot_be_a_calibration(options, error, message):
    with pytest.raises(error, match=message):
        ScoreCalibration(**options)


@pytest.mark.parametrize("text", ["a,b,c", "1,2", "1,,3", "", "1;2;3", "1,2,3\n\ufffd"])
def test_damaged_text(text):
    with pytest.raises(ValueError, match=r"^Received .* Expected .* To fix it: "):
        calibration_from_csv(text)
