"""Clips from directories of WAV files, and what is refused of them."""

import struct
import wave

import numpy as np
import pytest

from keras_kd.sound import load_clips

NAMES = "{label}_{speaker}_{index}.wav"


def write(path, samples, rate=8000, width=2, channels=1):
    """A WAV file of integers of so many bytes, with channels beside one another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.asarray(samples, "int64")
    content = (values + 128).astype("u1").tobytes()
    if width > 1:
        content = values.astype("<i8").view("u1").reshape(-1, 8)[:, :width].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(content)
    return path


@pytest.fixture
def digits(tmp_path):
    """Twelve clips of a constant level, by which they are told apart."""
    for place, (label, speaker, index) in enumerate(
        (label, speaker, index) for label in "31" for speaker in ("ann", "bo") for index in "012"
    ):
        write(tmp_path / f"{label}_{speaker}_{index}.wav", [100 * place + 100] * 8)
    return tmp_path


def test_names_say_class_and_speaker(digits):
    clips = load_clips(digits, seconds=0.001, names=NAMES)
    assert clips.x.shape == (12, 8)
    assert clips.x.dtype == np.float32
    assert (clips.class_names, clips.sample_rate, len(clips)) == (("1", "3"), 8000, 12)
    # In the order of the paths: those of 1 first, which were written last.
    np.testing.assert_array_equal(clips.y, [0] * 6 + [1] * 6)
    np.testing.assert_allclose(clips.x[0], 700 / 32768)
    np.testing.assert_array_equal(clips.fields["speaker"], (["ann"] * 3 + ["bo"] * 3) * 2)
    np.testing.assert_array_equal(clips.fields["index"], [*"012"] * 4)
    assert clips.fields["file"][3] == "1_bo_0.wav"


def test_directories_are_classes_and_some_can_be_chosen(tmp_path):
    for label in ("yes", "no", "_noise_", ".cache"):
        write(tmp_path / "set" / label / "0.wav", [len(label)] * 4)
    clips = load_clips(tmp_path, seconds=0.0005)
    assert clips.class_names == ("no", "yes")
    np.testing.assert_array_equal(clips.x[:, 0] * 32768, [2, 3])
    chosen = load_clips(tmp_path, seconds=0.0005, class_names=["yes"])
    assert (chosen.class_names, len(chosen)) == (("yes",), 1)
    in_order = load_clips(tmp_path, seconds=0.0005, class_names=["yes", "no"])
    np.testing.assert_array_equal(in_order.y, [1, 0])


def test_fields_in_directories_and_the_longest_match(tmp_path):
    write(tmp_path / "data/turn left/0a7c_nohash_12.WAV", [1] * 4)
    clips = load_clips(tmp_path, names="{label}/{speaker}_nohash_{index}.wav")
    assert clips.class_names == ("turn left",)
    assert (clips.fields["speaker"][0], clips.fields["index"][0]) == ("0a7c", "12")


def test_short_clips_are_padded_and_long_ones_cut_on_both_sides(tmp_path):
    write(tmp_path / "a/short.wav", [1, 2, 3])
    write(tmp_path / "a/long.wav", range(1, 12))
    clips = load_clips(tmp_path, seconds=5 / 8000)
    np.testing.assert_array_equal(clips.x * 32768, [[4, 5, 6, 7, 8], [0, 1, 2, 3, 0]])


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_samples_of_every_width(tmp_path, width):
    least = -(2 ** (8 * width - 1))
    write(tmp_path / "a/0.wav", [least, least // 2, 0, -least // 2, -least - 1], width=width)
    [clip] = load_clips(tmp_path, seconds=5 / 8000).x
    np.testing.assert_allclose(clip, [-1, -0.5, 0, 0.5, 1 + 1 / least], atol=1e-7)


def test_channels_are_averaged(tmp_path):
    write(tmp_path / "a/0.wav", [100, 200, -100, 100], channels=2)
    [clip] = load_clips(tmp_path, seconds=2 / 8000).x
    np.testing.assert_array_equal(clip * 32768, [150, 0])


def test_speakers_are_held_out_whole(digits):
    clips = load_clips(digits, seconds=0.001, names=NAMES)
    kept, held = clips.hold_out("speaker", ["bo"])
    assert set(kept.fields["speaker"]) == {"ann"}
    assert set(held.fields["speaker"]) == {"bo"}
    assert sorted([*kept.fields["file"], *held.fields["file"]]) == sorted(clips.fields["file"])
    np.testing.assert_array_equal(held.x, clips.x[clips.fields["speaker"] == "bo"])
    np.testing.assert_array_equal(held.y, [0, 0, 0, 1, 1, 1])
    assert clips.hold_out("speaker", "bo")[1].fields["file"].tolist() == held.fields[
        "file"
    ].tolist()  # fmt: skip
    some, others = clips.hold_out("file", 0.25, seed=1)
    assert (len(some), len(others)) == (9, 3)
    again = clips.hold_out("file", 0.25, seed=1)[1].fields["file"]
    assert again.tolist() == others.fields["file"].tolist()
    another = clips.hold_out("file", 0.25, seed=2)[1].fields["file"]
    assert another.tolist() != again.tolist()


@pytest.mark.parametrize(
    ("field", "which", "message"),
    [
        ("voice", 0.5, "field='voice'.*'speaker', 'index', 'file'"),
        ("speaker", ["cy"], "'cy' to hold out.*'ann', 'bo'"),
        ("speaker", ["ann", "bo"], "2 of the 2 values of 'speaker'.*not all"),
        ("speaker", [], "0 of the 2 values.*at least one"),
        ("speaker", 1.0, "2 of the 2 values"),
        ("speaker", -0.5, "which=-0.5.*above 0.*a fifth"),
    ],
)
def test_what_cannot_be_held_out(digits, field, which, message):
    clips = load_clips(digits, seconds=0.001, names=NAMES)
    with pytest.raises(ValueError, match=message):
        clips.hold_out(field, which)


def riff(*chunks, size=None):
    body = b"WAVE" + b"".join(name + struct.pack("<I", n) + data for name, n, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def format_chunk(kind=1, channels=1, rate=8000, bits=16):
    block = channels * -(-bits // 8)
    data = struct.pack("<HHIIHH", kind, channels, rate, rate * block % 2**32, block % 2**16, bits)
    return b"fmt ", 16, data


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "EOFError|cannot be read"),
        (b"RIFF", "cannot be read"),
        (b"no sound at all", "does not start with RIFF"),
        (riff((b"data", 8, bytes(8))), "data chunk before fmt|cannot be read"),
        (riff(format_chunk()), "cannot be read"),
        (riff(format_chunk(), (b"data", 0, b"")), "no samples in it"),
        (riff(format_chunk(), (b"data", 2**31, bytes(8))), "header declares 2147483648 bytes"),
        (
            riff(format_chunk(), (b"data", 0xFFFFFFFF, bytes(8)), size=0xFFFFFFFF),
            "header declares 429",
        ),
        (riff(format_chunk(), (b"data", 48, bytes(8))), "some are missing"),
        (riff(format_chunk(rate=0), (b"data", 8, bytes(8))), "0 samples in a second"),
        (riff(format_chunk(rate=2**32 - 1), (b"data", 8, bytes(8))), "4294967295 samples in a"),
        (riff(format_chunk(channels=0), (b"data", 8, bytes(8))), "bad # of channels"),
        (riff(format_chunk(bits=0), (b"data", 8, bytes(8))), "bad sample width"),
        (riff(format_chunk(bits=64), (b"data", 8, bytes(8))), "samples of 64 bits"),
        (riff(format_chunk(kind=3, bits=32), (b"data", 8, bytes(8))), "unknown format: 3"),
        (riff(format_chunk(kind=85), (b"data", 8, bytes(8))), "unknown format: 85"),
        (riff((b"fmt ", 2**31, bytes(8))), "cannot be read"),
        (riff((b"fmt ", 4, bytes(4))), "cannot be read"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, reason):
    write(tmp_path / "a/whole.wav", [1] * 8)
    (tmp_path / "a/damaged.wav").write_bytes(content)
    with pytest.raises(ValueError, match=reason) as error:
        load_clips(tmp_path)
    message = str(error.value)
    assert "clips that cannot be read" in message
    assert "a/damaged.wav" in message
    assert "whole" not in message
    assert "PCM samples of 8, 16, 24 or 32 bits" in message
    assert "ffmpeg -i in.wav -c:a pcm_s16le -ac 1 -ar" in message
    assert "\n" not in message


def test_random_bytes_never_end_otherwise(tmp_path):
    """Every single damage of a header is read or refused in one way."""
    path = write(tmp_path / "a/0.wav", range(40))
    content = path.read_bytes()
    random = np.random.default_rng(0)
    refused = []
    for _ in range(300):
        damaged = bytearray(content)
        for place in random.integers(0, 48, 2):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged[: random.choice([len(damaged), 20, 44, 60])])
        try:
            clips = load_clips(tmp_path, seconds=0.01, sample_rate=8000)
        except ValueError as error:
            refused.append(str(error))
        else:
            assert np.abs(clips.x).max() <= 1
    assert 0 < len(refused) < 300
    assert all("Expected" in message for message in refused)


def test_other_sample_rates_are_named(tmp_path):
    for index in range(3):
        write(tmp_path / f"a/{index}.wav", [1] * 4)
    write(tmp_path / "a/9.wav", [1] * 4, rate=44100)
    message = r"3 of 8000 Hz \(.*0\.wav\), 1 of 44100 Hz \(.*9\.wav\).*8000 Hz in all.*-ar 8000"
    with pytest.raises(ValueError, match=message):
        load_clips(tmp_path)
    with pytest.raises(ValueError, match=r"16000 Hz in all of them.*-ar 16000"):
        load_clips(tmp_path, sample_rate=16000)
    (tmp_path / "a/9.wav").unlink()
    assert load_clips(tmp_path, sample_rate=8000).sample_rate == 8000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0}, "seconds=0.*above 0.*1.0 for a second"),
        ({"seconds": 1e-9}, "0 samples each.*at least one sample"),
        ({"seconds": 1e12}, "12 clips.*bytes of memory.*which are free.*seconds=1.0"),
        ({"sample_rate": 0}, "sample_rate=0.*16000"),
        ({"names": None}, "0.wav.* and 7 more.*directories that are named.*names="),
        ({"names": "{label}-{speaker}.wav"}, "0.wav.*names like.*begins with _"),
        ({"names": "{speaker}_{index}.wav"}, r"names=.*\{label\} and other fields"),
        ({"names": "{label}{speaker}.wav"}, "with text between them"),
        ({"names": "{label}_{label}.wav"}, "each once"),
        ({"names": "{label}_{file}.wav"}, "names="),
        ({"class_names": ["1", "7"]}, r"class_names=\['1', '7'\].*some of '1', '3'"),
        ({"class_names": ["1", "1"]}, "each once"),
        ({"class_names": []}, r"class_names=\[\]"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit(digits, options, message):
    with pytest.raises(ValueError, match=message):
        load_clips(digits, **{"seconds": 0.001, "names": NAMES, **options})


def test_directories_without_clips(tmp_path):
    with pytest.raises(FileNotFoundError, match="a directory of WAV files"):
        load_clips(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no sound")
    with pytest.raises(ValueError, match=r"without a clip.*\.wav"):
        load_clips(tmp_path)
