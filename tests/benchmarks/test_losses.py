import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from keras_kd import losses
from keras_kd.data import Splits

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BASES = {"BatchLoss", "DistillationLoss", "FeatureLoss"}


@pytest.fixture(scope="module")
def benchmark(scripts):
    return scripts("losses")


@pytest.fixture(scope="module")
def dataset():
    generator = np.random.default_rng(0)
    images = generator.random((24, 28, 28, 1), dtype="float32")
    labels = generator.integers(0, 10, 24)
    return Splits("noise", images, labels, images, labels, tuple("abcdefghij"))


@pytest.fixture(scope="module")
def room(scripts, dataset, tmp_path_factory):
    trials = scripts("loss_trials")
    setting = trials.Setting(
        teacher_images=24,
        student_images=20,
        teacher_epochs=1,
        student_epochs=2,
        batch_size=8,
        teacher_channels=(4, 6, 8),
        student_channels=(2, 3, 4),
    )
    return trials.Classroom(dataset, setting, tmp_path_factory.mktemp("cache"))


@pytest.fixture
def results(scripts, tmp_path):
    return scripts("loss_results").Results(tmp_path / "losses.json")


def test_every_loss_is_tried_once(benchmark):
    tried = [row.loss.__name__ for row in benchmark.ROWS]
    # Its networks have no attention.
    assert sorted(tried) == sorted(set(losses.__all__) - BASES - {"AttentionScores", "get"})


def test_a_seed_fixes_the_first_weights_whatever_teaches(benchmark, room):
    alone, _ = room.learner(None, seed=3)
    taught, _ = room.learner(benchmark.CHOICES["ContrastiveRepresentation"], seed=3)
    other, _ = room.learner(None, seed=4)
    for one, same in zip(alone.get_weights(), taught.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)
    assert not np.array_equal(alone.get_weights()[0], other.get_weights()[0])


def test_a_seed_fixes_the_order_of_the_images(room):
    def order(seed):
        return np.concatenate(
            [labels for _, labels in room.batches(24, 2, seed).as_numpy_iterator()]
        )

    np.testing.assert_array_equal(order(0), order(0))
    assert not np.array_equal(order(0), order(1))
    first, second = order(0)[:24], order(0)[24:]
    np.testing.assert_array_equal(np.sort(first), np.sort(second))


def test_batches_are_whole(room):
    shapes = {images.shape for images, _ in room.batches(20, 3, seed=0)}
    assert shapes == {(8, 28, 28, 1)}


def test_the_teacher_is_trained_once(room, dataset, scripts):
    cache = room.teacher_path.parent
    written = room.teacher_path.stat().st_mtime_ns
    again = scripts("loss_trials").Classroom(dataset, room.setting, cache)
    assert again.teacher_path.stat().st_mtime_ns == written
    for one, same in zip(room.teacher.get_weights(), again.teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)


def test_other_teachers_have_other_files(room):
    other = replace(room.setting, teacher_epochs=2)
    assert other.of_the_teacher != room.setting.of_the_teacher
    assert replace(room.setting, student_epochs=9).of_the_teacher == room.setting.of_the_teacher


def test_nobody_learns_from_validation_images(scripts):
    trials = scripts("loss_trials")
    setting = trials.Setting()
    assert setting.student_images <= setting.teacher_images
    assert setting.teacher_images + trials.VALIDATION_IMAGES <= 60_000


@pytest.mark.slow
def test_one_trial(benchmark, room):
    first = room.trial(benchmark.CHOICES["SoftTargets"], seed=0)
    assert 0 <= first <= 100


@pytest.mark.slow
def test_every_loss_takes_a_finite_step(benchmark, room):
    for row in benchmark.ROWS:
        _, learner = room.learner(row, seed=0)
        logs = learner.fit(room.batches(8, 1, seed=0), shuffle=False, verbose=0).history
        assert np.isfinite(logs["total_loss"]).all(), row.loss


def file_trials(results, description, setting, accuracies):
    for seed, accuracy in enumerate(accuracies):
        results.add({**description, "setting": setting, "seed": seed}, accuracy=accuracy)


def test_gains_are_differences_seed_by_seed(benchmark, results, scripts):
    setting = asdict(benchmark.Setting())
    rows = [benchmark.described(name) for name in ("alone", "Hint", "SoftTargets", "LogitsMSE")]
    file_trials(results, rows[0], setting, [80.0, 82.0, 84.0])
    file_trials(results, rows[1], setting, [79.0, 81.0, 83.0])
    file_trials(results, rows[2], setting, [81.0, 84.0, 87.0])
    file_trials(results, rows[3], setting, [90.0])
    results.add({**rows[0], "setting": setting, "cost": True}, milliseconds=2.0)
    results.add({**rows[1], "setting": setting, "cost": True}, milliseconds=5.0)
    lines = scripts("loss_results").table(rows, setting, range(3), results).splitlines()[2:]
    assert lines == [
        "| `SoftTargets(temperature=4.0)` | outputs | 9 | 84.00 ± 1.73 | +2.00 ± 0.58 |  |",
        "| alone |  |  | 82.00 ± 1.15 |  | 1.00 |",
        "| `Hint()` | block2 | 100 | 81.00 ± 1.15 | -1.00 ± 0.00 | 2.50 |",
    ]


def test_results_outlive_the_process(results, scripts):
    results.add({"loss": "alone", "shape": (1, 2)}, accuracy=1.0)
    results.add({"loss": "alone", "shape": (1, 2)}, accuracy=2.0)
    again = scripts("loss_results").Results(results._path)
    assert again.find({"loss": "alone", "shape": (1, 2)}) == {"accuracy": 2.0}
    assert again.find({"loss": "alone", "shape": (1, 3)}) is None
    assert len(json.loads(results._path.read_text())) == 1


def test_what_is_there_is_not_run_again(benchmark, results):
    setting = benchmark.Setting()
    file_trials(results, benchmark.described("Hint"), asdict(setting), [1.0, 2.0])
    assert not list(benchmark.run(["Hint"], range(2), (setting,), 1, results))


def test_results_of_another_setting_do_not_count(benchmark, results, scripts):
    setting = benchmark.Setting()
    rows = [benchmark.described("alone")]
    file_trials(results, rows[0], asdict(setting), [1.0, 2.0])
    other = asdict(replace(setting, student_epochs=setting.student_epochs + 1))
    table, head = scripts("loss_results").table, scripts("loss_results").HEAD
    assert table(rows, other, range(2), results) == head
    assert table(rows, asdict(setting), range(2), results) != head


def test_one_seed_is_refused(benchmark, capsys):
    with pytest.raises(SystemExit, match="2"):
        benchmark.main(["--seeds", "1"])
    assert "a standard error needs at least two seeds" in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_way(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs the `examples` extra")
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(28, 28, 1)),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
    )
    examples = [
        (index, {"image": np.full((28, 28, 1), index, "uint8"), "label": index % 10})
        for index in range(160)
    ]
    tfds.dataset_builders.store_as_tfds_dataset(
        name="fashion_mnist",
        version="3.0.1",
        features=features,
        split_datasets={"train": examples[:128], "test": examples[128:]},
        data_dir=tmp_path / "data",
    )
    sizes = {"teacher-images": 64, "student-images": 64, "teacher-epochs": 1, "student-epochs": 1}
    command = [
        *(sys.executable, BENCHMARKS / "losses.py", "--only", "alone", "Hint", "--seeds", "2"),
        *("--data-dir", tmp_path / "data", "--cache", tmp_path / "cache"),
        *("--output", tmp_path / "losses.json", "--rounds", "1"),
        *(str(part) for name, size in sizes.items() for part in (f"--{name}", size)),
    ]
    for extra in ["--jobs", "1"], ["--cost"]:
        done = subprocess.run([*command, *extra], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    table = done.stdout.splitlines()[2:]
    assert {line.split("|")[1].strip() for line in table} == {"alone", "`Hint()`"}
    assert all(line.split("|")[-2].strip() for line in table)
