"""Stores can come from anywhere: what they say is checked and not believed."""

import json
import os
import shutil
import sqlite3
import tracemalloc
import zlib

import numpy as np
import pytest

from keras_kd.teachers.stored import database
from keras_kd.teachers.stored.database import Records


def everything(path):
    """What a store has, by all the ways of reading it."""
    records = Records(path)
    try:
        rows = records.read(np.arange(records.count))
        found = records.find(rows.keys)
        records.verify()
        return (
            records.description,
            records.count,
            records.complete,
            *map(bytes, (rows.keys, rows.fingerprints, found)),
            b"".join(rows.outputs),
        )
    finally:
        records.close()


@pytest.mark.usefixtures("store")
def test_a_changed_byte_anywhere_is_named_or_harmless(quick_disk, light):
    """Harmless is what changes nothing that can be read, such as the unused end of a page."""
    store = quick_disk / "store"
    store.unlink()
    with light.new(database, store) as writer:
        light.write(writer, 12)
    content = store.read_bytes()
    good = everything(store)
    harmless = []
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        store.write_bytes(changed)
        try:
            assert everything(store) == good, place
        except ValueError as error:
            text = str(error)
            assert text.startswith("Received"), (place, text)
            assert str(store) in text or "description" in text, (place, text)
        else:
            harmless.append(place)
        assert os.listdir(store.parent) == [store.name], place
    # Every byte of every record is sealed.
    assert len(harmless) < len(content) / 2
    store.write_bytes(content)
    for output in Records(store).read(np.arange(12)).outputs:
        # SQLite moves records within a page and leaves what was there.
        copies = [at for at in range(len(content)) if content.startswith(output, at)]
        assert any(not set(range(at, at + len(output))) & set(harmless) for at in copies)


def test_a_damaged_record_is_named_and_others_are_read(store, light):
    content = store.read_bytes()
    for place in (0, 17, 39):
        output = light.records(place, 1)[2].tobytes()
        assert output in content
        store.write_bytes(content.replace(output, output[:-1] + bytes([output[-1] ^ 1])))
        records = Records(store)
        damage = rf"store', which is damaged: record {place} is not what its checksum"
        with pytest.raises(ValueError, match=damage):
            records.read([place])
        with pytest.raises(ValueError, match=damage):
            records.verify()
        others = np.delete(np.arange(40), place)
        light.check(records.read(others), others)


def test_a_store_cut_at_any_length(store):
    content = store.read_bytes()
    for length in range(0, len(content), 61):
        store.write_bytes(content[:length])
        with pytest.raises((ValueError, FileNotFoundError), match=r"the store|not a store"):
            everything(store)


def test_what_is_behind_the_end_is_harmless(store):
    good = everything(store)
    store.write_bytes(store.read_bytes() + b"\0" * 1000)
    assert everything(store) == good


@pytest.fixture
def change(store):
    """Change a store by statements of SQL, its checksums included where it is said so."""

    def change(*statements, seal=False):
        connection = sqlite3.connect(store)
        # What is created for an attack may name what is not there.
        connection.execute("PRAGMA writable_schema = ON")
        for statement in statements:
            connection.execute(statement)
        if seal:
            connection.create_function("seal", 4, sealed)
            connection.execute(
                "UPDATE store SET checksum = seal(description, records, complete, 0)"
            )
        connection.commit()
        connection.close()

    return change


def sealed(text, records, complete, seal):
    text = text if isinstance(text, bytes) else str(text).encode()
    return zlib.crc32(f"{records} {complete}".encode(), zlib.crc32(text, seal))


def refused(store, match):
    """A refusal may not take memory, nor change the file."""
    before = store.read_bytes()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match):
            everything(store)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert store.read_bytes() == before
    assert os.listdir(store.parent) == [store.name]


def test_a_change_that_is_sealed_is_believed(store, change):
    change("UPDATE store SET complete = 0", seal=True)
    assert not Records(store).complete


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON records BEGIN DELETE FROM records; END",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TABLE more (a)",
        "CREATE INDEX more ON records (fingerprint)",
        "INSERT INTO sqlite_master VALUES ('table', 'f', 'f', 0, "
        "'CREATE VIRTUAL TABLE f USING fts5(a)')",
        "DROP INDEX keys",
        "ALTER TABLE records ADD COLUMN more",
        "ALTER TABLE records RENAME TO others",
        "UPDATE sqlite_master SET sql = sql || ' ' WHERE name = 'records'",
        "UPDATE sqlite_master SET sql = replace(sql, 'key INTEGER', 'key INTEGER AS (place)')",
        "UPDATE sqlite_master SET type = 'view' WHERE name = 'store'",
        "UPDATE sqlite_master SET sql = NULL",
        "UPDATE sqlite_master SET sql = 'CREATE TABLE records ('  WHERE name = 'records'",
        "UPDATE sqlite_master SET rootpage = 2",
        "DELETE FROM sqlite_master",
    ],
)
def test_another_schema_is_refused(store, change, statement):
    if statement.startswith("DROP"):
        # Without the index it is the schema of a store without keys, which this is not.
        change(statement)
        assert not Records(store).has_keys
        return
    change(statement)
    refused(store, "its tables are not those of a store|damaged: malformed|is damaged: ")


def test_no_function_of_a_schema_runs(store, change):
    """A view in place of the table is what an attack on readers of databases begins with."""
    view = "CREATE VIEW store AS SELECT load_extension('x') AS description"
    change("ALTER TABLE store RENAME TO old", view)
    refused(store, "its tables are not those of a store")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM store",
        "INSERT INTO store SELECT * FROM store",
        "UPDATE store SET description = 5",
        "UPDATE store SET description = x'ff00'",
        "UPDATE store SET description = '{'",
        "UPDATE store SET description = ''",
        "UPDATE store SET description = printf('%.*c', 200000, '[')",
        "UPDATE store SET description = printf('%.*c', 3000000, 'x')",
        "UPDATE store SET records = -1",
        "UPDATE store SET records = 41",
        "UPDATE store SET records = 1000000000000",
        "UPDATE store SET records = 'many'",
        "UPDATE store SET records = 40.5",
        "UPDATE store SET records = x'40'",
        "UPDATE store SET complete = x'00', records = 2.5e300",
        "UPDATE records SET outputs = 5 WHERE place = 3",
        "UPDATE records SET outputs = zeroblob(14) WHERE place = 3",
        "UPDATE records SET outputs = zeroblob(100000) WHERE place = 3",
        "UPDATE records SET key = 7 WHERE place = 3",
        "UPDATE records SET key = NULL WHERE place = 3",
        "UPDATE records SET key = 'text' WHERE place = 3",
        "UPDATE records SET fingerprint = fingerprint + 0.5 WHERE place = 3",
        "UPDATE records SET version = 1 WHERE place = 3",
        "UPDATE records SET checksum = 0 WHERE place = 3",
        "UPDATE records SET place = 1000 WHERE place = 3",
        "DELETE FROM records WHERE place = 3",
    ],
)
def test_contents_that_no_writer_writes(store, change, statement):
    change(statement, seal=True)
    refused(store, r"store', which is damaged: ")


def test_records_of_another_store(store, tmp_path, light, change):
    other = tmp_path / "other"
    with database.RecordWriter(other, {"teacher": "other"}, 14, has_keys=True) as writer:
        light.write(writer, 40)
    change(f"ATTACH '{other}' AS other")
    connection = sqlite3.connect(store)
    connection.execute(f"ATTACH '{other}' AS other")
    connection.execute("DELETE FROM records")
    connection.execute("INSERT INTO records SELECT * FROM other.records")
    connection.commit()
    connection.close()
    with pytest.raises(ValueError, match="damaged: record 0 is not what"):
        Records(store).verify()


def test_an_index_that_leads_elsewhere(store, light):
    """Where the index alone is damaged, no key may seem unknown."""
    content = store.read_bytes()
    key = int(light.keys(3, 1)[0]).to_bytes(8, "big", signed=True)
    lacking = 0
    for place in range(len(content)):
        if not content.startswith(key, place):
            continue
        changed = bytearray(content)
        changed[place + 7] ^= 1
        store.write_bytes(changed)
        try:
            found = Records(store).find(light.keys(3, 1))
        except ValueError as error:
            lacking += "its index of keys lacks some" in str(error)
        else:
            assert found.tolist() == [3]
    assert lacking == 1


def test_other_files(tmp_path):
    path = tmp_path / "file"
    for content in (b"text", b"\0" * 5000, b"SQLite format 3\0", b"SQLite format 3\0" * 500):
        path.write_bytes(content)
        refused(path, "file', which is damaged or not a store")
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE notes (text)")
    connection.close()
    refused(path, "file', which is damaged or not a store")


def test_a_store_of_another_version(store, change):
    change("PRAGMA user_version = 2")
    refused(store, r"in version 2\.1\.1 of its format\. Expected version 1\.1\.1")


def test_a_file_larger_than_any(store, change):
    """A number of records is believed as far as there are bytes, and a hole has none."""
    with store.open("r+b") as file:
        file.truncate(1 << 40)
    change("UPDATE store SET records = 100000000", seal=True)
    with pytest.raises(ValueError, match="record 40 is missing"):
        Records(store).verify()


@pytest.mark.parametrize("to_write", [False, True])
def test_a_journal_that_names_another_file(store, light, to_write):
    """SQLite would remove the file, once it has undone what the journal says."""
    place = store.parent
    victim, journal = place / "victim", place / "store-journal"
    victim.write_text("mine")
    connection = sqlite3.connect(store, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN")
    connection.execute("UPDATE records SET checksum = 0, outputs = zeroblob(3000)")
    shutil.copy(store, place / "half")
    shutil.copy(journal, place / "half-journal")
    connection.close()
    name = str(victim).encode()
    end = (2**32 - 4).to_bytes(4, "big")
    with (place / "half-journal").open("ab") as file:
        total = sum(name) % 2**32
        file.write(end + name + len(name).to_bytes(4, "big") + total.to_bytes(4, "big"))
        file.write(bytes.fromhex("d9d505f920a163d7"))
    for _ in range(2):
        shutil.copy(place / "half", store)
        shutil.copy(place / "half-journal", journal)
        with pytest.raises(ValueError, match=r"store-journal', the journal .*names another file"):
            light.new(database, store) if to_write else Records(store)
        assert victim.read_text() == "mine"


def test_the_description_comes_back(tmp_path):
    about = {"shape": [3, 4], "name": "\N{SNOWMAN}", "scale": 0.1, "nothing": None}
    with database.RecordWriter(tmp_path / "s", about, 1) as writer:
        writer.append(None, np.zeros(1, np.uint16), np.zeros(1, np.uint8))
    assert Records(tmp_path / "s").description == about
    assert json.loads(json.dumps(about)) == about
