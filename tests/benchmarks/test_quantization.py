from dataclasses import asdict, replace

import numpy as np
import pytest

from keras_kd.data import Splits


@pytest.fixture(scope="module")
def benchmark(scripts):
    return scripts("quantization")


@pytest.fixture(scope="module")
def workshop(scripts, tmp_path_factory):
    generator = np.random.default_rng(0)
    images = generator.random((24, 28, 28, 1), dtype="float32")
    labels = generator.integers(0, 10, 24)
    dataset = Splits("noise", images, labels, images, labels, tuple("abcdefghij"))
    cache = tmp_path_factory.mktemp("cache")
    teacher = scripts("loss_trials").Setting(
        teacher_images=24, teacher_epochs=1, batch_size=8, teacher_channels=(4, 6, 8)
    )
    room = scripts("loss_trials").Classroom(dataset, teacher, cache)
    trials = scripts("quantization_trials")
    setting = trials.Setting(images=24, float_epochs=1, further_epochs=1, channels=(2, 3, 4))
    return trials.Workshop(room, setting, images, cache)


@pytest.fixture
def results(scripts, tmp_path):
    return scripts("loss_results").Results(tmp_path / "quantization.json")


def file_trials(results, way, setting, accuracies):
    for seed, accuracy in enumerate(accuracies):
        description = {**asdict(way), "setting": asdict(setting), "seed": seed}
        results.add(description, accuracy=accuracy, bytes=1000)


def test_every_way_is_tried_once_and_begins_with_a_float_student(benchmark):
    assert len(set(benchmark.WAYS)) == len(benchmark.WAYS)
    for way in benchmark.WAYS:
        assert replace(way, further=None, weight_bits=32, aware=False) in benchmark.WAYS
        assert not way.aware or way.further is not None


@pytest.mark.slow
def test_both_float_students_of_a_seed_begin_with_the_same_weights(scripts, workshop, monkeypatch):
    seen = []
    monkeypatch.setattr(
        type(workshop), "_train", lambda self, student, *_: seen.append(student.get_weights())
    )
    for start, seed in ("alone", 7), ("taught", 7), ("alone", 8):
        workshop._float_student(start, seed)
    for one, same in zip(seen[0], seen[1], strict=True):
        np.testing.assert_array_equal(one, same)
    assert not np.array_equal(seen[0][0], seen[2][0])


def test_float_students_are_trained_once(workshop, monkeypatch):
    first = workshop._float_student("taught", 0).get_weights()
    monkeypatch.setattr(type(workshop), "_train", None)
    for one, same in zip(first, workshop._float_student("taught", 0).get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)


def test_a_further_training_leaves_the_first_float_students_as_they_are(workshop):
    other = replace(workshop.setting, further_epochs=2)
    for further, same in (False, True), (True, False):
        names = [
            setting.of_float_students(trained_further=further)
            for setting in (workshop.setting, other)
        ]
        assert (names[0] == names[1]) == same


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bits", "further", "aware", "types"),
    [
        (32, None, False, {"FLOAT32"}),
        (8, "labels", False, {"INT8"}),
        (8, "teacher", True, {"INT8"}),
        # Depthwise convolutions have no kernels for 4 bits.
        (4, None, False, {"INT4", "INT8"}),
        (4, "teacher", True, {"INT4", "INT8"}),
    ],
)
def test_a_file_has_weights_of_these_bits(scripts, workshop, bits, further, aware, types):
    way = scripts("quantization_trials").Way("taught", further, bits, aware)
    weight_types = workshop._file(way, 0).flatbuffer.weight_types() - {"INT32"}
    assert weight_types == types
    assert 0 <= workshop.trial(way, 0)["accuracy"] <= 100


def test_losses_are_differences_seed_by_seed(benchmark, results):
    setting = benchmark.Setting()
    before, rounded, taught, unfinished = [
        benchmark.Way("taught", None, 32),
        benchmark.Way("taught", None, 8),
        benchmark.Way("taught", "teacher", 4, aware=True),
        benchmark.Way("taught", "labels", 4, aware=True),
    ]
    file_trials(results, before, setting, [80.0, 82.0, 84.0])
    file_trials(results, rounded, setting, [79.0, 81.0, 83.0])
    file_trials(results, taught, setting, [81.0, 84.0, 87.0])
    file_trials(results, unfinished, setting, [80.0])
    ways = [before, rounded, taught, unfinished]
    lines = benchmark.table(ways, setting, range(3), results).splitlines()
    assert lines[2:] == [
        "| float32 | taught |  | 82.00 ± 1.15 |  | 1000 |",
        "| 8 bits | taught | rounded | 81.00 ± 1.15 | -1.00 ± 0.00 | 1000 |",
        "| 4 bits | taught | quantization-aware, labels and teacher |"
        " 84.00 ± 1.73 | +2.00 ± 0.58 | 1000 |",
    ]


def test_what_is_there_is_not_run_again(benchmark, results):
    setting, way = benchmark.Setting(), benchmark.WAYS[0]
    file_trials(results, way, setting, [1.0, 2.0])
    assert not list(benchmark.run([way], range(2), (setting,), 1, results))


def test_results_of_another_setting_do_not_count(benchmark, results):
    setting, way = benchmark.Setting(), benchmark.WAYS[0]
    file_trials(results, way, setting, [1.0, 2.0])
    other = replace(setting, further_epochs=setting.further_epochs + 1)
    assert benchmark.table([way], other, range(2), results) == benchmark.HEAD
    assert benchmark.table([way], setting, range(2), results) != benchmark.HEAD


def test_one_seed_is_refused(benchmark, capsys):
    with pytest.raises(SystemExit, match="2"):
        benchmark.main(["--seeds", "1"])
    assert "a standard error needs at least two seeds" in capsys.readouterr().err
