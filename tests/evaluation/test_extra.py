import pytest

from keras_kd.evaluation.extra import check_report_extra, report_module


def test_what_is_installed_is_imported():
    check_report_extra()
    assert report_module("jinja2").__name__ == "jinja2"


def test_what_is_missing_is_named_with_the_command_that_installs_it():
    with pytest.raises(ModuleNotFoundError, match=r"without no_such_module.*keras-kd\[report\]"):
        report_module("no_such_module")
