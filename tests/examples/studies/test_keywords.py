import dataclasses
import json
import wave

import keras
import numpy as np
import pytest

RATE = 8000
INDICES = 13


@pytest.fixture(scope="module")
def study():
    import keywords

    return keywords


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Tones of three heights, by two speakers, in place of words."""
    place = tmp_path_factory.mktemp("recordings")
    generator = np.random.default_rng(0)
    times = np.arange(RATE // 2) / RATE
    for word in range(3):
        for speaker, factor in (("anna", 1.0), ("ben", 1.2)):
            for index in range(INDICES):
                tone = 0.3 * np.sin(2 * np.pi * 300 * 2**word * factor * times)
                samples = tone + 0.01 * generator.normal(size=len(times))
                with wave.open(str(place / f"{word}_{speaker}_{index}.wav"), "wb") as file:
                    file.setnchannels(1)
                    file.setsampwidth(2)
                    file.setframerate(RATE)
                    file.writeframes((32767 * samples).astype("<i2").tobytes())
    return place


@pytest.fixture(scope="module")
def settings(study, recordings, tmp_path_factory):
    return study.Settings(
        recordings,
        tmp_path_factory.mktemp("keywords"),
        filters=8,
        small_filters=4,
        teacher_filters=12,
        versions=2,
        epochs=1,
        teacher_epochs=1,
        draws=2,
        temperatures=(2.0,),
        seeds=1,
        speakers=1,
        batch_size=8,
    )


@pytest.fixture(scope="module")
def features(study, settings):
    assert study.make_features(settings, {}) == {"clips": 6 * INDICES, "classes": 3}
    return study.load(settings)


def test_features_are_those_of_the_clips_in_noise_of_the_stated_level(study, settings, features):
    clips = keras_kd_clips(settings)
    front_end = study.sound.LogMel(RATE, window=0.032, hop=0.032, mels=settings.mels)
    np.testing.assert_allclose(features.clean, front_end(clips.x), atol=1e-5)
    # At 0 dB noise has the power of the clip, of which a tone is the whole: the mean powers of
    # frames, whose bands are averages, are not comparable, but silence is.
    silent = np.exp(features.clean[:, 0]).mean()
    noise = np.exp(features.noisy[:, :, 0]) - 2.0**-20
    power = np.mean(np.square(clips.x))
    # Noise of a power P has |X|^2 of P sum(h^2) (2 / sum(h))^2, and sum(h^2) = 3/8 F for Hann.
    expected = power * (3 / 8 * 256) * (2 / 128) ** 2
    assert silent < 0.01 * expected
    assert noise.mean() == pytest.approx(expected, rel=0.03)
    assert not np.array_equal(features.noisy[0], features.noisy[1])


def keras_kd_clips(settings):
    from keras_kd import sound

    names = "{label}_{speaker}_{index}.wav"
    return sound.load_clips(settings.data_dir, seconds=settings.seconds, names=names)


def test_each_clip_has_one_purpose(features):
    rows = {purpose: features.rows(purpose) for purpose in ("training", "validation", "test")}
    assert np.all(sum(each.astype(int) for each in rows.values()) == 1)
    assert set(features.index[rows["test"]]) == set(range(5))
    assert set(features.index[rows["validation"]]) == set(range(5, 10))


def test_a_speaker_who_is_left_out_only_tests(features):
    for purpose in ("training", "validation"):
        assert set(features.speaker[features.rows(purpose, "ben")]) == {"anna"}
    np.testing.assert_array_equal(features.rows("test", "ben"), features.speaker == "ben")


def test_all_trainings_have_as_many_examples_of_the_clips_that_they_may_see(study, features):
    total = 2 * 6 * (INDICES - 10)
    seen = {}
    for key in ("all", "few", "one", "one-strong", "clean"):
        for every_clip in (False, True):
            for seed in range(2 if key.startswith("one") else 1):
                condition = study.CONDITIONS[key]
                x, y, keys = study.training(features, condition, seed, every_clip)
                assert len(x) == len(y) == len(keys) == total
                known = y != study.UNKNOWN
                clips = keys % len(features.y)
                np.testing.assert_array_equal(y[known], features.y[clips[known]])
                sources = features.changed if condition.is_changed else features.clean[None]
                np.testing.assert_array_equal(x, sources.reshape(-1, *x.shape[1:])[keys])
                assert features.rows("training")[clips].all()
                assert every_clip or known.all()
                labelled = np.unique(clips[known])
                assert len(labelled) == 6 * (condition.labelled or 3) or key == "few"
                seen[key, every_clip, seed] = set(labelled)
    assert seen["one", False, 0] == seen["one", True, 0] == seen["one-strong", False, 0]
    assert not seen["one", False, 0] & seen["one", False, 1]


def test_networks_have_the_sizes_of_keyword_spotters(study):
    defaults = study.Settings(None, None)
    shape = 25, defaults.mels
    student, small, teacher = (
        study.network(shape, 10, filters, 0).count_params()
        for filters in (defaults.filters, defaults.small_filters, defaults.teacher_filters)
    )
    assert 8_000 < student < 16_000
    assert 2_000 < small < 4_000
    assert teacher > 4 * student


def test_a_pair_begins_with_the_same_weights(study):
    first, second = (study.network((25, 20), 10, 8, seed=3).get_weights() for _ in range(2))
    for ours, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_difference_is_shown_if_its_interval_leaves_out_zero(study):
    # A mean of 2 with a standard error of 0.577 (t = 3.46); 4.303 is needed of three, 3.182 of 4.
    assert study.verdict([1.0, 2.0, 3.0]) == "not shown"
    assert study.verdict([1.0, 2.0, 3.0, 2.0]) == "better"
    assert study.verdict([-1.0, -2.0, -3.0, -2.0]) == "worse"
    assert study.verdict([5.0]) == "not shown"
    assert study.verdict([1.0, 1.0]) == "not shown"
    assert study.verdict([0.0, 0.0, 0.0]) == "not shown"


def test_validation_clips_choose_the_temperature(study):
    results = {
        f"trial-T{t:g}": {
            "clean": test,
            "noisy": test,
            "validation_clean": 0.9,
            "validation_noisy": noisy,
            "temperature": t,
        }
        for t, test, noisy in ((4.0, 0.1, 0.8), (2.0, 0.2, 0.8), (1.0, 1.0, 0.7))
    }
    assert study.chosen_temperature(results) == 2.0


def test_jobs_come_after_what_they_need(study):
    listed = study.jobs(study.Settings(None, None))
    done = set()
    for job in listed:
        assert set(job.needs) <= done
        done.add(job.name)
    assert len(done) == len(listed)
    assert {"teacher", "teacher-clean", "teacher-unseen-5", "teacher-4-labels-2"} <= done
    # Both teachers of a student with few labels are compared with one student alone.
    assert "few-strong-alone-0" not in done


def test_a_missing_directory_says_what_to_pass(study, tmp_path):
    with pytest.raises(ValueError, match="no directory of clips; pass --data-dir"):
        study.make_features(study.Settings(None, tmp_path), {})


@pytest.fixture(scope="module")
def results(study, settings, features, finished):
    conditions = {
        "all": study.CONDITIONS["all"],
        "few": dataclasses.replace(study.CONDITIONS["few"], labelled=2),
        "unseen": dataclasses.replace(study.CONDITIONS["unseen"], is_changed=False),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "CONDITIONS", conditions)
        yield finished(study.jobs(settings), settings, settings.described())


@pytest.mark.slow
def test_accuracy_is_that_of_the_kept_model(settings, features, results):
    for name, rows in (
        ("few-0", features.rows("test")),
        ("unseen-alone-0", features.rows("test", "anna")),
    ):
        model = keras.models.load_model(settings.path(name))
        for measure, draws in (("clean", features.clean[None]), ("noisy", features.noisy)):
            right = [
                model.predict(x[rows], verbose=0).argmax(-1) == features.y[rows] for x in draws
            ]
            assert results[name][measure] == pytest.approx(np.mean(right))


@pytest.mark.slow
def test_the_page_holds_what_was_measured(study, settings, results, tmp_path):
    study.main(["--page-only", "--work-dir", str(settings.work_dir), "--pages", str(tmp_path)])
    text = (tmp_path / "keywords.md").read_text()
    for measure in ("clean", "noisy"):
        teacher, alone, taught = (
            100 * results[name][measure] for name in ("teacher", "all-alone-0", "all-0")
        )
        row = f"| all labels | 1 | {teacher:.1f} | {alone:.1f} | {taught:.1f} |"
        assert f"{row} {taught - alone:+.1f} | not shown |" in text
    file = results["all-0-int8"]
    assert f"| {file['bytes']:,} | {file['arena_bytes']:,} |" in text
    trial = 100 * study.validation(results["trial-T2"])
    assert f": 2: {trial:.1f} %." in text
    assert "![The difference of each pair" in text
    assert (tmp_path / "keywords.svg").stat().st_size > 1000
    command = "keywords.py --data-dir free-spoken-digit-dataset/recordings --filters 8"
    assert command in text
    assert json.loads((tmp_path / "keywords.json").read_text())["jobs"] == results
