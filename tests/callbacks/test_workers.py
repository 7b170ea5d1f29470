"""Trainings on several replicas that are killed; see `replicas_training.py`, which trains."""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _workers import places

from keras_kd.callbacks.workers import Held, newest_of_all

SCRIPT = Path(__file__).with_name("replicas_training.py")


def held(*numbers, run=7):
    return [Held(number, run) for number in numbers]


@pytest.mark.parametrize(
    ("workers", "number"),
    [
        ([held(4, 2), held(4, 2)], 4),
        ([held(4, 2), held(2)], 2),
        ([held(2, 0), held(4, 2), held(4, 2)], 2),
        ([held(6, 4, 2), held(4), held(6, 2, 4)], 4),
        ([held(0), held(0)], 0),
        ([held(), held()], None),
        # Killed while the first worker had saved the beginning, and the second one had not.
        ([held(0), held()], None),
        ([held(0), held(0, run=8)], None),
    ],
)
def test_the_last_checkpoint_of_all_workers_is_chosen(workers, number):
    for order in itertools.permutations(workers):
        chosen = newest_of_all(order)
        assert chosen == (None if number is None else Held(number, 7))


@pytest.mark.parametrize(
    "workers",
    [
        [held(4, 2), held()],
        [held(4, 2), held(6)],
        [held(4, 2), held(4, 2), held(0)],
        # The same steps of another run.
        [held(4, 2), held(4, 2, run=8)],
    ],
)
def test_steps_are_not_lost_in_silence(workers):
    with pytest.raises(
        ValueError, match=r"worker 0 after 2 and 4 steps; worker 1 .*restore the missing"
    ):
        newest_of_all(workers)


@pytest.mark.parametrize("workers", [2, 3])
def test_all_workers_have_a_checkpoint_in_common_after_any_kill(workers):
    """A worker saves for the n-th time only after all have saved for the time before."""
    steps = [0, 3, 5, 6, 9]
    for saves in range(len(steps)):
        for ahead in itertools.product([0, 1], repeat=workers):
            counts = [min(saves + each, len(steps)) for each in ahead]
            kept = [held(*steps[max(0, count - 2) : count]) for count in counts]
            chosen = newest_of_all(kept)
            least = min(counts)
            assert chosen == (Held(steps[least - 1], 7) if least else None)


def started(arguments, **environment):
    return subprocess.Popen(
        [sys.executable, SCRIPT, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def ended(processes):
    """What each has printed last."""
    try:
        found = []
        for process in processes:
            output, errors = process.communicate()
            assert process.returncode == 0, errors
            found.append(json.loads(output.splitlines()[-1]))
        return found
    finally:
        # One waits for the other where that one failed.
        for process in processes:
            process.kill()


def check(results, folders):
    for name, result in results.items():
        assert result["same"] is True, (name, result)
        assert result.get("from one device", 0.0) < 1e-6, (name, result)
        assert result["learned"] > 0, (name, result)
        # At the last two of six steps.
        files = [f"training-{number:010}.npz" for number in (5, 6)]
        assert result["files"] == [f"{folder}{file}" for folder in folders for file in files]


CASES = ["arrays", "pipeline", "drawing", "numbered", "random", "older"]


@pytest.mark.slow
def test_two_replicas_go_on():
    [results] = ended([started([*CASES, "without_a_teacher", "fewer_replicas"])])
    assert results.pop("without_a_teacher") == {"same": True}
    assert "another training: replicas: 2 there, null here" in results.pop("fewer_replicas")
    assert list(results) == CASES
    check(results, [""])


@pytest.mark.slow
def test_two_workers_go_on_with_what_both_have():
    """Also where one lost its last checkpoint, or that of the other one is damaged."""
    results = ended([started(CASES, TF_CONFIG=place) for place in places()])
    for index, result in enumerate(results):
        assert list(result) == CASES
        check(result, [f"worker-{index}/"])


@pytest.mark.slow
def test_workers_that_cannot_go_on_raise_an_error():
    results = ended([started(["unlike", "refused"], TF_CONFIG=place) for place in places()])
    unreadable = (
        "Received worker 1 of 2, which cannot begin",
        "training-0000000002.npz', which cannot be read",
    )
    for result, expected in zip(results, unreadable, strict=True):
        assert expected in result["unlike"]["unreadable"]
        assert "worker 0 after 2 and 3 steps; worker 1 without any" in result["unlike"]["lost"]
        assert "delete those of all workers to begin anew" in result["unlike"]["lost"]
        assert result["unlike"]["kept"] is True
        assert "with auto_shard_policy FILE" in result["refused"]["by_files"]
        assert "without a teacher for ResumeTraining" in result["refused"]["of_keras"]


@pytest.mark.slow
def test_workers_that_are_killed_at_any_step_end_as_those_that_are_not(tmp_path):
    def start(name):
        # A directory that both share, in which each has its own.
        return [
            started(
                ["--train", str(tmp_path / name), str(tmp_path / f"{name}_{index}.npz")],
                TF_CONFIG=place,
            )
            for index, place in enumerate(places())
        ]

    ended(start("whole"))
    generator = np.random.default_rng()
    for killed in ([int(generator.integers(2))], [0, 1]):
        workers = start("part")
        for _ in range(int(generator.integers(1, 4))):
            assert workers[killed[0]].stdout.readline() == "step\n"
        for index in killed:
            workers[index].send_signal(signal.SIGKILL)
        for worker in workers:
            worker.communicate(timeout=300)
            assert worker.returncode != 0
    ended(start("part"))
    for index in range(2):
        paths = (tmp_path / f"{name}_{index}.npz" for name in ("whole", "part"))
        whole, part = (dict(np.load(path)) for path in paths)
        assert list(whole) == list(part)
        for name in whole:
            np.testing.assert_array_equal(whole[name], part[name])
