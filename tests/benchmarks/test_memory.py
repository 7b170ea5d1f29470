import io

import pytest

from keras_kd.teachers import StoredTeacher

TINY = {
    "teacher": "small",
    "image": (16, 16, 3),
    "batch_size": 4,
    "steps": 2,
    "store_megabytes": 0.1,
    "features": (4, 4, 8),
}


@pytest.fixture(scope="module")
def memory(scripts):
    return scripts("memory")


@pytest.fixture
def modes(scripts):
    return scripts("memory_modes")


@pytest.mark.slow
def test_every_mode_runs_in_the_order_of_the_benchmark(memory, modes, tmp_path):
    place = modes.Workplace(modes.Setting(**TINY), tmp_path)
    assert set(memory.in_turns(1)) == set(modes.MODES)
    for mode in memory.in_turns(1):
        took = modes.measure(mode, place)
        assert took["peak"] >= took["own"] > 0
    outputs = StoredTeacher(tmp_path / "outputs")
    assert len(outputs) == 8
    assert outputs.models == []
    assert len(StoredTeacher(tmp_path / "features")) == place.setting.stored_examples == 390


def test_a_store_has_the_size_that_is_asked_for(modes):
    setting = modes.Setting(store_megabytes=100, features=(10, 10))
    assert setting.stored_examples == 500_000


def test_what_a_teacher_keeps_is_counted(modes, tmp_path):
    place = modes.Workplace(modes.Setting(**TINY), tmp_path)
    kernels = 27 * 32 + 2 * 288 * 32
    normalizations = 3 * 4 * 32
    counted = modes.teacher_bytes(place)
    assert counted["weights"] == 4 * (kernels + 3 * 32 + normalizations + 33 * 100)
    activations = 16 * 16 * 3 + 3 * 32 * (64 + 16 + 4) + 32 + 100
    assert counted["activations"] == 4 * 4 * activations


@pytest.mark.slow
def test_a_mode_is_measured_in_a_process_of_its_own(memory, tmp_path):
    took = memory.in_a_process("imports", TINY, tmp_path)
    assert took["peak"] > 50e6
    assert took["seconds"] < 1


@pytest.mark.slow
def test_a_process_that_fails_says_why(memory, tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)^'read features, .*the store .*features"):
        memory.in_a_process("read features, shuffled", TINY, tmp_path)


def test_rows_and_sentences_are_medians_and_differences(memory):
    same = memory.Taken((100e6,), (50e6,), (1.0,))
    taken = dict.fromkeys(memory.ONCE + memory.COMPARED, same)
    taken["student alone"] = memory.Taken((150e6, 130e6, 170e6), (70e6, 60e6, 80e6), (1.0,) * 3)
    taken["keras_kd, online teacher"] = memory.Taken((250e6,), (60e6,), (1.0,))
    console = memory.Console(width=120, record=True, file=io.StringIO())
    console.print(memory.table(taken))
    (row,) = (line for line in console.export_text().splitlines() if "student alone" in line)
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    assert cells == ["student alone", "150", "50", "70", "130 to 170", "3"]
    text = " ".join(memory.conclusions(taken, {"weights": 1e6, "activations": 2e9}, 1e9))
    assert "1 MB of weights, and all that its layers say of a batch is 2,000 MB" in text
    assert "every step: +100 MB against the student alone, +150 MB against its inference" in text
    assert "What it said in a store: -50 MB" in text
