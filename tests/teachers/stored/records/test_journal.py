import zlib

import pytest

from keras_kd.teachers.stored.records.journal import Chunk, complete_line, read_journal

SEAL = 0x1234ABCD


@pytest.fixture
def journal(tmp_path):
    """Write lines as a journal and read it."""

    def journal(content):
        path = tmp_path / "journal"
        path.write_bytes(content)
        return read_journal(path, SEAL)

    return journal


def sealed(*texts, seal=SEAL):
    """Lines with these texts, sealed as `Chunk.line` does."""
    content = b""
    for text in texts:
        seal = zlib.crc32(text.encode(), seal)
        content += b"%s %08x\n" % (text.encode(), seal)
    return content


GOOD = sealed("0 5 0000002a", "5 7 000000ff", "complete 12")


def test_lines_are_what_the_text_says():
    first, seal = Chunk(0, 5, 42).line(SEAL)
    second, seal = Chunk(5, 7, 255).line(seal)
    last, _ = complete_line(12, seal)
    assert first + second + last == GOOD


def test_a_whole_journal(journal):
    read = journal(GOOD)
    assert read.chunks == (Chunk(0, 5, 42), Chunk(5, 7, 255))
    assert (read.count, read.complete, read.size) == (12, True, len(GOOD))


def test_an_empty_journal(journal):
    read = journal(b"")
    assert (read.chunks, read.count, read.complete, read.size) == ((), 0, False, 0)
    assert read.seal == SEAL


def test_a_chunk_that_has_grown_replaces_itself(journal):
    read = journal(sealed("0 5 0000002a", "5 2 00000001", "5 4 00000002", "9 1 00000003"))
    assert read.chunks == (Chunk(0, 5, 42), Chunk(5, 4, 2), Chunk(9, 1, 3))


def test_a_journal_cut_at_any_length_tells_what_is_before(journal):
    ends = [0, *(place + 1 for place, byte in enumerate(GOOD) if byte == ord("\n"))]
    counts = [0, 5, 12, 12]
    for length in range(len(GOOD)):
        read = journal(GOOD[:length])
        lines = sum(end <= length for end in ends) - 1
        assert (read.count, read.complete) == (counts[lines], False)
        assert read.size == ends[lines]
        # Writing on from there gives the same journal.
        assert journal(GOOD[: read.size] + GOOD[read.size :]).complete


def test_a_changed_byte_anywhere_is_refused_or_as_if_cut_there(journal):
    for place in range(len(GOOD)):
        for change in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            changed = bytearray(GOOD)
            changed[place] ^= change
            if place == len(GOOD) - 1:
                read = journal(bytes(changed))
                assert (read.count, read.complete) == (12, False)
                continue
            line = GOOD[:place].count(b"\n") + 1
            count = (0, 5, 12)[line - 1]
            message = rf"journal', whose line {line} is damaged; {count} records are whole before"
            with pytest.raises(ValueError, match=message):
                journal(bytes(changed))


def test_damage_says_how_to_go_on(journal, tmp_path):
    with pytest.raises(ValueError, match="is damaged") as error:
        journal(GOOD.replace(b"5 7", b"5 8"))
    size = len(sealed("0 5 0000002a"))
    assert f"cut it to its first {size} bytes and store the outputs again" in str(error.value)
    assert journal(GOOD[:size]).count == 5


@pytest.mark.parametrize(
    "texts",
    [
        ["1 5 0000002a"],
        ["0 0 00000000"],
        ["0 -5 0000002a"],
        ["-5 5 0000002a"],
        ["0 5 2a"],
        ["0 5 0000002A"],
        ["0 05 0000002a"],
        ["0 5.0 0000002a"],
        ["0 5"],
        ["0 5 0000002a extra"],
        [""],
        ["0 5 0000002a", "4 5 0000002a"],
        ["0 5 0000002a", "6 5 0000002a"],
        ["0 5 0000002a", "0 5 0000002b"],
        ["0 5 0000002a", "0 4 0000002b"],
        ["0 5 0000002a", "5 5 0000002a", "0 11 0000002a"],
        ["0 5 0000002a", "complete 6"],
        ["0 5 0000002a", "complete 5", "complete 5"],
        ["0 5 0000002a", "complete 5", "5 1 0000002a"],
        ["0 1000000000000000000000 0000002a"],
        ["0 5 0000002a", "complete"],
        ["x" * 10_000],
    ],
)
def test_sealed_lines_that_no_writer_writes(journal, texts):
    with pytest.raises(ValueError, match=f"line {len(texts)} is damaged"):
        journal(sealed(*texts))


def test_lines_of_another_store(journal):
    with pytest.raises(ValueError, match="line 1 is damaged; 0 records are whole"):
        journal(sealed("0 5 0000002a", seal=SEAL + 1))


def test_lines_that_are_lost_moved_or_doubled(journal):
    first, second, last = GOOD.splitlines(keepends=True)
    for lines in (
        [second, last],
        [first, last],
        [first, first],
        [second, first],
        [first, second] * 2,
    ):
        with pytest.raises(ValueError, match="is damaged"):
            journal(b"".join(lines))


def test_something_behind_the_end(journal):
    with pytest.raises(ValueError, match="line 4 is damaged; 12 records are whole before it"):
        journal(GOOD + b"x")


def test_a_long_file_without_lines_is_not_read(journal, tmp_path):
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match="line 1 is damaged"):
        read_journal(tmp_path / "huge", SEAL)
