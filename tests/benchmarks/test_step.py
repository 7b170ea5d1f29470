import sys

import keras
import numpy as np
import pytest


@pytest.fixture(scope="module")
def step(scripts):
    return scripts("step")


def test_ways_take_turns(step):
    calls = []
    ways = {name: lambda name=name: calls.append(name) for name in ("one", "other")}
    times = step.rounds_of(ways, rounds=3, turn=4, uncounted=1)
    assert set(times) == {"one", "other"}
    assert all(len(rounds) == 3 and min(rounds) >= 0 for rounds in times.values())
    turns = [calls[10 + 4 * turn : 14 + 4 * turn] for turn in range(6)]
    assert all(len(set(turn)) == 1 for turn in turns)
    for before in range(0, 6, 2):
        assert {turns[before][0], turns[before + 1][0]} == {"one", "other"}


def test_a_bound_is_held_or_missed_as_it_is_shown(step):
    at_most, at_least = step.Ratio("a", "b", at_most=1.05), step.Ratio("a", "b", at_least=1.0)
    assert at_most.holds(1.054)
    assert not at_most.holds(1.056)
    assert at_least.holds(0.996)
    assert not at_least.holds(0.994)
    assert step.Ratio("a", "b").holds(5.0)


def test_the_table_shows_what_was_measured(step):
    others = (step.ALONE, step.PARTS, step.KERAS, step.STORED)
    times = {way: [2.0, 8.0, 2.0] for way in others}
    measured = {"small": {**times, step.ONLINE: [3.0, 12.0, 2.0], step.FEATURES: [3.0, 12.0, 2.0]}}
    columns = step.ratios_table(measured).columns
    shown = dict(zip(columns[0].cells, columns[2].cells, strict=True))
    assert shown[f"{step.ONLINE} / {step.KERAS}"] == "1.50 !"
    assert shown[f"{step.FEATURES} / {step.ONLINE}"] == "1.00"
    # There is no row for what was not measured.
    assert not any(step.TORCH in name for name in shown)


@pytest.fixture
def clock(step, monkeypatch):
    """A clock that goes on by what a step takes."""
    now = [0.0]
    monkeypatch.setattr(step.time, "perf_counter", lambda: now[0])

    def steps_that_take(*seconds):
        left = [0.0] * 5 + list(seconds)
        return lambda: now.__setitem__(0, now[0] + left.pop(0))

    return steps_that_take


def test_the_first_steps_of_a_turn_are_not_counted(step, clock):
    times = step.rounds_of({"one": clock(9, 1, 2, 3, 8, 4, 5, 6)}, 2, turn=4, uncounted=1)
    assert times == {"one": [2000.0, 5000.0]}


def test_times_are_those_of_a_step(step, clock):
    ways = {step.SEVERAL: clock(9, 16), "one": clock(*[7] * 4, *[1] * 8)}
    assert step.rounds_of(ways, 1, turn=12, uncounted=4) == {
        step.SEVERAL: [2000.0],
        "one": [1000.0],
    }


@pytest.mark.slow
def test_each_way_takes_steps(step, tmp_path):
    teacher = step.classifier(step.TEACHERS["small"], "small")
    ways = step.ways(teacher, 8, tmp_path)
    assert {step.ALONE, step.PARTS, step.ONLINE, step.KERAS, step.FEATURES, step.STORED} <= set(
        ways
    )
    for way in ways.values():
        way()
        way()


@pytest.mark.slow
def test_the_loop_of_pytorch_computes_the_same_step(step):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    import torch_step

    images = np.random.default_rng(0).random((8, *step.IMAGE), dtype="float32")
    ours = step.classifier(step.STUDENT, "student")
    theirs = torch_step.classifier(step.IMAGE[-1], step.STUDENT, step.CLASSES)
    layers = [layer for layer in theirs if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    with torch.no_grad():
        for layer, (kernel, bias) in zip(
            layers, np.reshape(np.array(ours.weights, dtype=object), (-1, 2)), strict=True
        ):
            axes = (3, 2, 0, 1) if len(kernel.shape) == 4 else (1, 0)
            layer.weight.copy_(torch.from_numpy(kernel.numpy().transpose(axes).copy()))
            layer.bias.copy_(torch.from_numpy(bias.numpy()))
        said = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(said, keras.ops.convert_to_numpy(ours(images)), atol=1e-5)


@pytest.mark.slow
def test_imports_are_measured_in_fresh_processes(step):
    assert "json" in sys.modules
    (seconds,) = step.import_seconds("json", 1)
    assert 0 < seconds < 10
