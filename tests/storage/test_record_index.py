"""The record index: which picture is shown for a key, and what is known of it."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from t2i_core.storage import record_index as module
from t2i_core.storage.keys import KEY
from t2i_core.storage.record_index import RecordIndex
from t2i_core.storage.records import RECORD_TABLE, Status, table_row
from tests.builders import failed_record, image_record, image_spec, record_index, spoil_column


def lost_record(spec, **facts):
    return image_record(spec, status=Status.LOST, **facts)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """Records -> their index, in a folder that Arrow, by name, would take for a URL."""
    monkeypatch.chdir(tmp_path)
    folder = Path("run-10:00")
    return lambda *records, **options: record_index(folder, records, **options)


def column(*records):
    return pa.array([record.key for record in records], pa.string())


def decoded(index):
    return [key.decode() for key in index.keys]


def test_images_that_were_made_are_found_and_no_others(index):
    images = [image_record(image_spec(i)) for i in range(5)]
    failed, unknown = failed_record(image_spec(5)), image_record(image_spec(6))
    known = index(*images, failed)
    assert decoded(known) == sorted(image.key for image in images)
    assert known.errors == {failed.key: "NaN"}
    asked = [*images, failed, unknown]
    expected = [decoded(known).index(image.key) for image in images] + [-1, -1]
    assert known.find(column(*asked)).tolist() == expected


@pytest.mark.parametrize("count", [0, 1, 4, 7])
def test_a_table_is_read_in_chunks(index, monkeypatch, count):
    monkeypatch.setattr(module, "CHUNK_ROWS", 2)
    images = [image_record(image_spec(i)) for i in range(count)]
    failed = [failed_record(image_spec(10 + i), error=f"e{i}") for i in range(3)]
    known = index(*images, *failed)
    assert decoded(known) == sorted(image.key for image in images)
    assert known.errors == {record.key: f"e{i}" for i, record in enumerate(failed)}
    facts = known.facts(["key", "seed"]).to_pylist()
    assert facts == [{"key": image.key, "seed": image.spec["seed"]} for image in sorted(images, key=lambda i: i.key)]


def test_a_replacement_is_shown_for_the_failed_image(index):
    failed = failed_record(image_spec(1))
    replacement = image_record(image_spec(2), replaces=failed.key)
    other = image_record(image_spec(3))
    known = index(failed, replacement, other)
    assert known.picture_keys(column(failed, other, failed)).to_pylist() == [
        replacement.key,
        other.key,
        replacement.key,
    ]
    found = decoded(known)
    assert known.find(column(failed, other)).tolist() == [found.index(replacement.key), found.index(other.key)]
    assert known.replacements == {failed.key: (replacement.key, 2)}
    assert known.errors == {}  # the failed image has a picture


def test_without_replacements_keys_are_their_own_pictures(index):
    record = image_record(image_spec(1))
    asked = column(record)
    assert index(record).picture_keys(asked) is asked


def test_failed_replacements_are_counted(index):
    failed = failed_record(image_spec(1))
    again = [failed_record(image_spec(2 + i), replaces=failed.key) for i in range(2)]
    known = index(failed, *again)
    assert known.attempts == Counter({failed.key: 2})
    assert known.attempts[again[0].key] == 0
    assert known.errors.keys() == {failed.key, *(record.key for record in again)}


def test_failures_and_replacements_stand_in_any_order(index):
    """The table is sorted by key, so what comes first is chance."""
    failed = [failed_record(image_spec(i)) for i in range(20)]
    replacements = [image_record(image_spec(100 + i), replaces=record.key) for i, record in enumerate(failed[:10])]
    known = index(*failed, *replacements)
    assert known.errors.keys() == {record.key for record in failed[10:]}
    assert known.replacements.keys() == {record.key for record in failed[:10]}


def test_nothing_asked_is_nothing_found(index):
    failed = failed_record(image_spec(1))
    known = index(failed, image_record(image_spec(2), replaces=failed.key))
    assert known.picture_keys(column()).type == pa.string()
    assert known.find(column()).tolist() == []


def test_facts_stay_on_disk_until_they_are_asked_for(index):
    spoiled = image_record(image_spec(1))
    path = Path("run-10:00") / index(spoiled).name
    spoil_column(path, "versions")
    known = RecordIndex(path)
    assert known.facts(["key"]).to_pylist() == [{"key": spoiled.key}]
    with pytest.raises(OSError):
        known.facts(["versions"])


def test_a_lost_replacement_keeps_its_seed_and_is_no_picture(index):
    failed = failed_record(image_spec(1))
    lost = lost_record(image_spec(2), replaces=failed.key)
    known = index(failed, lost)
    assert known.replacements == {failed.key: (lost.key, 2)}
    assert known.errors == {}
    assert known.find(column(failed, lost)).tolist() == [-1, -1]
    assert known.attempts == Counter({failed.key: 1})  # another new seed would be the second


def test_of_several_replacements_the_latest_is_shown_whatever_its_key(index):
    """A made image that was made again with a new seed, several times; the table is sorted by key."""
    for start in range(5):
        first = image_record(image_spec(start))
        again = [
            image_record(image_spec(100 * start + attempt), replaces=first.key, attempt=attempt)
            for attempt in (1, 2, 3, 4)
        ]
        known = index(first, *again)
        assert known.picture_keys(column(first)).to_pylist() == [again[-1].key]
        assert (known.attempt(first.key), known.attempts[first.key]) == (4, 4)
        assert known.attempt(again[0].key) is None


def test_a_replacement_of_an_earlier_version_has_no_number_and_comes_before_all_others(index):
    first = image_record(image_spec(1))
    old = image_record(image_spec(2), replaces=first.key)
    assert (index(first, old).attempt(first.key), index(first, old).attempts[first.key]) == (None, 1)
    new = image_record(image_spec(3), replaces=first.key, attempt=2)
    known = index(first, old, new)
    assert known.replacements == {first.key: (new.key, 3)}
    assert known.attempts[first.key] == 2


def test_a_replacement_that_failed_takes_no_place_and_its_seed_is_used_up(index):
    first = image_record(image_spec(1))
    shown = image_record(image_spec(2), replaces=first.key, attempt=1)
    failed = failed_record(image_spec(3), "NaN", replaces=first.key, attempt=2)
    known = index(first, shown, failed)
    assert known.replacements == {first.key: (shown.key, 2)}
    assert (known.attempts[first.key], known.replacement_errors) == (2, {first.key: "NaN"})


def test_a_table_of_an_earlier_version_has_no_numbers(tmp_path):
    first = image_record(image_spec(1))
    old = image_record(image_spec(2), replaces=first.key)
    rows = sorted((table_row(asdict(record)) for record in (first, old)), key=lambda row: row["key"])
    table = pa.Table.from_pylist(rows, RECORD_TABLE).drop_columns(["attempt"])
    assert record_index(tmp_path, table).replacements == {first.key: (old.key, 2)}


def test_images_of_other_runs_do_not_count_when_everything_is_made_again(index):
    old, new = image_record(image_spec(1)), image_record(image_spec(2), run="r2")
    failed = failed_record(image_spec(3))
    known = index(old, new, failed, only_run="r2")
    assert known.only_run == "r2"
    assert known.find(column(new, old)).tolist() == [0, -1]
    assert known.facts(["key", "seed"]).to_pylist() == [{"key": new.key, "seed": 2}]
    assert known.errors == {failed.key: "NaN"}


def test_all_runs_count_by_default(index):
    known = index(image_record(image_spec(1), run="r1"), image_record(image_spec(2), run="r2"))
    assert len(known.keys) == 2
    assert known.only_run is None


def test_facts_are_those_of_the_images_in_key_order(index):
    images = [image_record(image_spec(i), run=f"r{i}", commit=None if i else "c0ffee", seconds=i / 2) for i in range(9)]
    known = index(*images, failed_record(image_spec(20)))
    by_key = {image.key: image for image in images}
    facts = known.facts(["run", "commit", "seconds"])
    assert facts.column_names == ["run", "commit", "seconds"]
    expected = [by_key[key] for key in decoded(known)]
    assert facts["run"].to_pylist() == [image.run for image in expected]
    assert facts["commit"].to_pylist() == [image.commit for image in expected]
    assert facts["seconds"].to_pylist() == [image.seconds for image in expected]


def test_records_stay_readable_when_a_later_run_removes_their_file(index):
    known = index(image_record(image_spec(1)))
    assert known.name == "records.parquet"
    (Path("run-10:00") / known.name).unlink()
    assert known.facts(["run"])["run"].to_pylist() == ["r1"]


def test_a_table_without_images_knows_nothing(index):
    known = index()
    assert isinstance(known, RecordIndex)
    assert len(known.keys) == 0
    assert known.find(pa.array(["0" * 64])).tolist() == [-1]
    assert len(known.facts(["key", "run"])) == 0


@pytest.mark.parametrize("others", [0, 1])
def test_the_keys_of_stored_files_are_shared_where_they_are_those_of_the_images(index, others):
    images = [image_record(image_spec(i)) for i in range(4)]
    stored = np.array(sorted(image.key for image in images[others:]), KEY)
    if others:  # as many, but not the same
        stored = np.sort(np.append(stored, np.array([image_spec(9).key], KEY)))
    before = stored.copy()
    known = index(*images, failed_record(image_spec(5)), stored=stored)
    assert decoded(known) == sorted(image.key for image in images)
    assert (known.keys is stored) == (not others)
    assert stored.tolist() == before.tolist()
