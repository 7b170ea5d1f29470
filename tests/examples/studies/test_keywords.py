import wave
from pathlib import Path

import numpy as np
import pytest

sound = pytest.importorskip("keras_kd.sound")


@pytest.fixture(scope="module")
def study():
    import keywords

    return keywords


def write_clip(path: Path, frequency: float, seed: int) -> None:
    """Half a second of a tone in some noise, at 8 kHz."""
    generator = np.random.default_rng(seed)
    time = np.arange(4000) / 8000
    samples = 0.3 * np.sin(2 * np.pi * frequency * time) + 0.01 * generator.normal(size=4000)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes((32767 * samples).astype("<i2").tobytes())


@pytest.fixture(scope="module")
def settings(study, tmp_path_factory):
    """Two digits of two speakers: a low and a high tone."""
    data = tmp_path_factory.mktemp("clips")
    for digit in range(2):
        for speaker in range(2):
            for number in (0, 5, 10, 11, 12, 13):
                frequency = 400 + 1500 * digit + 100 * speaker
                write_clip(data / f"{digit}_s{speaker}_{number}.wav", frequency, number)
    return study.Settings(
        data,
        tmp_path_factory.mktemp("keywords"),
        versions=2,
        epochs=1,
        filters=4,
        teacher_filters=6,
        seeds=1,
        batch_size=4,
    )


@pytest.fixture(scope="module")
def results(study, settings, finished):
    return finished(study.jobs(settings, ("s1",)), settings, settings.described())


def clips(study):
    numbers = np.tile([0, 5, 10, 11], 4)
    features = np.arange(16.0).reshape(16, 1, 1)
    return study.Clips(
        changed=np.stack([features, features + 100], axis=1),
        clean=features,
        noisy=features,
        y=np.repeat([0, 1, 0, 1], 4),
        speaker=np.repeat(["s1", "s1", "s2", "s2"], 4),
        number=numbers,
    )


def test_clips_that_test_and_validate_train_nothing(study):
    known = clips(study)
    purposes = known.purposes(study.ALL)
    assert set(known.number[purposes["training"]]) == {10, 11}
    assert set(known.number[purposes["validation"]]) == {5}
    assert set(known.number[purposes["test"]]) == {0}
    assert len(np.concatenate(list(purposes.values()))) == 16


def test_nothing_of_a_speaker_who_is_left_out_is_heard_before_the_test(study):
    known = clips(study)
    purposes = known.purposes("s2")
    assert set(known.speaker[purposes["training"]]) == {"s1"}
    assert set(known.speaker[purposes["validation"]]) == {"s1"}
    assert list(purposes["test"]) == list(range(8, 16))


def test_versions_become_examples_with_their_labels(study):
    x, y = study.flat(clips(study), np.array([3, 9]))
    np.testing.assert_array_equal(x[:, 0, 0], [3, 9, 103, 109])
    np.testing.assert_array_equal(y, [0, 0, 0, 0])


def test_a_tenth_of_each_class_keeps_its_labels(study):
    y = np.repeat([0, 1, 2], [40, 20, 5])
    kept = study.few(y, 0)
    assert [int(kept[y == number].sum()) for number in range(3)] == [4, 2, 1]
    assert not np.array_equal(kept, study.few(y, 1))


@pytest.mark.slow
def test_all_situations_are_measured(study, settings, results):
    assert results["features"]["speakers"] == ["s0", "s1"]
    for situation in study.SITUATIONS:
        (result,) = study.pairs(results, situation)
        for key in ("alone", "distilled"):
            assert 0 <= result[key]["clean"] <= 1
    (standard,) = study.pairs(results, "standard")
    file = settings.work_dir / "standard-all-0-distilled.tflite"
    assert standard["distilled-int8"]["bytes"] == file.stat().st_size


@pytest.mark.slow
def test_the_page_holds_what_was_measured(study, settings, results, tmp_path):
    study.main(
        [
            "--page-only",
            "--work-dir",
            str(settings.work_dir),
            "--pages",
            str(tmp_path),
            "--data",
            str(settings.data),
        ]
    )
    text = (tmp_path / "keywords.md").read_text()
    (unseen,) = study.pairs(results, "unseen")
    values = [100 * unseen[key]["noisy"] for key in ("alone", "distilled")]
    row = "| a speaker never heard, noisy | 1 | {:.2f} | {:.2f} |".format(*values)
    assert row in text
    # One pair has no standard error: nothing is clear.
    assert "more than two standard errors: nowhere." in text
