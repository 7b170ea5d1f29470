"""The time of a search: how it is divided, and what is kept free for what follows."""

from types import SimpleNamespace
from typing import Any

import pytest

from keras_kd.devices import Device
from keras_kd.search.rounds import Search
from keras_kd.search.teaching import Recipe

COST = {"bytes": 1, "flash_bytes": 1, "arena_bytes": None, "latency": 1.0, "parameters": 1}


def entry(took=0.0, starts=(), final=None, cost=COST):
    return {
        "settings": {"seed": None},
        "cost": cost,
        "reason": "",
        "took": took,
        "rungs": [{"start": start, "epochs": 1, "value": 0.5} for start in starts],
        "final": final,
    }


def search(candidates, seconds, max_seconds, compressed=False):
    options: dict[str, Any] = {
        "teacher": None,
        "family": None,
        "train": SimpleNamespace(x=None),
        "judge": None,
        "output_shape": (1,),
        "board": Device(flash="1 MB", target="web", compressed=compressed),
        "recipe": Recipe(9, 64, 1e-3, 0.1, None, None, 0.7, 0),
        "state": SimpleNamespace(
            candidates=candidates, seconds=seconds, entry=candidates.__getitem__
        ),
        "trials": 3,
        "finalists": 2,
        "max_seconds": max_seconds,
        "say": print,
    }
    return Search(**options)


def test_without_a_limit_there_is_all_the_time():
    free = search({"a": entry(20.0, [8.0])}, 1e6, None)
    assert free._left_to_measure() is None
    assert free._left_to_train() is None
    assert free._left_to_finish() is None
    assert free._seconds_of_a_last_training(2) is None


@pytest.mark.parametrize(("compressed", "trainings"), [(False, 1), (True, 2)])
def test_a_training_leaves_time_for_a_file(compressed, trainings):
    # 75 % are over after 90 s; but the file takes 1.5 * 20 s, and the end 0.5 * 20 s.
    short = search({"a": entry(20.0, [8.0])}, 45.0, 120.0, compressed)
    assert short._left_to_train() == pytest.approx(120 - 30 - 10 - 8 * trainings - 45)
    assert short._left_to_finish() == pytest.approx(120 - 10 - 45)
    # One file of two: for both there is no time.
    assert short._seconds_of_a_last_training(2) == pytest.approx((120 - 10 - 45 - 30) / trainings)
    # In a long search, the shares decide.
    long = search({"a": entry(20.0, [8.0])}, 45.0, 3600.0, compressed)
    assert long._left_to_train() == pytest.approx(0.75 * 3600 - 45)


def test_what_files_took_is_known_after_the_first():
    final = {"took": 6.0, "value": 0.5, "cost": COST, "aware": True}
    known = search({"a": entry(20.0, [8.0], final)}, 45.0, 120.0)
    assert known._seconds_of_a_file() == 6.0 + 8.0
    # What was written before this was measured.
    old = {**entry(starts=[8.0]), "final": {"value": 0.5, "cost": COST}}
    del old["took"]
    assert search({"a": old}, 45.0, 120.0)._seconds_of_a_file() == 8.0


def test_the_first_measure_which_imports_counts_as_one_of_several():
    several = {"a": entry(38.0), "b": entry(10.0), "c": entry(12.0)}
    assert search(several, 45.0, 120.0)._seconds_to_end() == 0.5 * 12.0


def test_without_a_student_that_fits_measuring_goes_on():
    fits = search({"a": entry(4.0)}, 40.0, 120.0)
    assert fits._left_to_measure() == 0.0
    too_large = {**COST, "flash_bytes": 2**21}
    none_yet = search({"a": entry(4.0, cost=too_large)}, 40.0, 120.0)
    # Until a training of 5 s and a file are all that there is time for.
    assert none_yet._left_to_measure() == pytest.approx(120 - 5 - (6 + 5) - 2 - 40)
