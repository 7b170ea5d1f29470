import pytest


def test_a_kill_at_any_call_to_the_system_leaves_what_can_be_gone_on_with(run, quick_disk):
    seen = run("kill", "everywhere", quick_disk)
    assert seen["calls"] > 50
    # None, some, and all of the records were there; and journals that had to be played back.
    assert seen["counts"] == [0, 4, 8, 12]
    assert seen["journals"] > 30


def test_kills_at_random_moments(run, quick_disk):
    seen = run("kill", "at-random", quick_disk, 40, 1)
    assert seen["stores"] > 0
    assert seen["between"] > 5


@pytest.mark.slow
def test_many_kills_at_random_moments(run, quick_disk):
    seen = run("kill", "at-random", quick_disk, 500, 2)
    assert seen["stores"] > 10
    assert seen["between"] > 60


@pytest.mark.slow
def test_kills_on_a_disk(run, tmp_path):
    seen = run("kill", "at-random", tmp_path, 20, 3)
    assert seen["between"] > 3
