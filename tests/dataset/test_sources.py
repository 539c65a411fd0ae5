"""What a data set consists of, what it is known by, and what is refused at once."""

import hashlib
import json
import os
from pathlib import Path

import fsspec
import pytest

from t2i_core.bundled import EXAMPLE_FILE
from t2i_core.dataset.data_file import DataFile
from t2i_core.dataset.sources import check_dataset, find_parts, fingerprint, would_read
from t2i_core.errors import DatasetError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder: `here("a.jsonl", "more/b.jsonl")` writes files with their name as content."""
    monkeypatch.chdir(tmp_path)

    def write(*names):
        for name in names:
            path = Path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"prompt": name}) + "\n")
        return tmp_path

    return write


def names(dataset):
    return [part.name for part in find_parts(dataset).parts]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ms:some/set", "ModelScope.*download"),
        ("rows.pkl", "pickle runs code"),
        ("missing.pickle.gz", "pickle runs code"),
        ("weights.PT", "pickle runs code"),
        ("missing.jsonl", "no such file.*check the path"),
        ("rows.jsnl", "no such file.*; did you mean rows.jsonl"),
        ("some/set", "hf:name:split"),
        ("rows.xlsx", r"unknown format \.xlsx; give a \.jsonl \.ndjson \.json \.csv \.tsv \.parquet \.arrow \.txt f"),
        ("rows", "unknown format without a suffix"),
        ("rows.parquet.gz", r"\.parquet files compress inside and are not read through \.gz; unpack it"),
        ("empty", "is a folder without a data file; give a"),
        ("tree", r"is a folder without a data file; for what its folders hold, give 'tree/\*\*/\*\.jsonl'"),
        ("no*.jsonl", "no file matches"),
        ("rows.[jx]*", r"rows\.xlsx: unknown format"),
        ("mixed", r"has files of several formats, such as mixed/a\.csv and mixed/b\.jsonl; give those of one format"),
        ("pipe.jsonl", "is a pipe"),
        ("dangling.jsonl", "is a link to nowhere, which does not exist"),
        ("hf:", "write hf:name:split"),
        ("hf:name", "write hf:name:split"),
        ("hf:a:b:c:d", "write hf:name:split"),
        ("hf:name::train", "write hf:name:split"),
        ("hf:name:train[:10]", "--limit"),
        ("hf:tree:train", "on this disk"),
        ("hf:~nobody/rows:train", "on this disk"),
        ("x" * 300 + ".jsonl", "cannot be read: File name too long; check the path"),
        (["rows.jsonl", "rows.jsonl"], r"dataset: rows\.jsonl is there twice, so its rows would count twice; name"),
        (["rows.jsonl", "./rows.jsonl"], r"\./rows\.jsonl \(the same file as rows\.jsonl\) is there twice"),
        (["rows.jsonl", "mixed/a.csv"], "has files of several formats"),
        (["rows.jsonl", "missing.jsonl"], "missing.jsonl: no such file"),
    ],
)
def test_what_cannot_be_read_is_refused_at_once_in_one_line(here, name, message):
    here("rows.xlsx", "rows.parquet.gz", "rows.pkl", "rows.jsonl", "rows")
    here("mixed/a.csv", "mixed/b.jsonl", "tree/in/a.txt")
    Path("empty").mkdir()
    Path("empty/notes.md").write_text("x")
    os.mkfifo("pipe.jsonl")
    Path("dangling.jsonl").symlink_to("nowhere")
    for use in (find_parts, check_dataset):
        with pytest.raises(DatasetError, match=message) as error:
            use(name)
        assert "\n" not in str(error.value)


def test_a_folder_is_its_data_files_sorted_by_name(here):
    here("set/b.jsonl.gz", "set/a.jsonl", "set/c.ndjson")
    here("set/.hidden.jsonl", "set/notes.md", "set/in/d.jsonl", "set/x.lz4")
    found = find_parts("set")
    assert [part.name for part in found.parts] == ["set/a.jsonl", "set/b.jsonl.gz", "set/c.ndjson"]
    assert found.row_files == ("set/a.jsonl", "set/b.jsonl.gz", "set/c.ndjson")
    assert found.unread == ("set/notes.md", "set/x.lz4")
    assert found.parts[1] == DataFile("set/b.jsonl.gz", "set/b.jsonl.gz", "jsonl", "gz")


def test_a_glob_is_what_matches_sorted_by_name(here):
    here("b1.jsonl", "a2.jsonl", "a1.jsonl", "in/deep/a3.jsonl", "literal[1].jsonl")
    assert names("a*.jsonl") == ["a1.jsonl", "a2.jsonl"]
    assert names("**/a*.jsonl") == ["a1.jsonl", "a2.jsonl", "in/deep/a3.jsonl"]
    assert names("./[ab]1.jsonl") == ["./a1.jsonl", "./b1.jsonl"]
    assert names("literal[1].jsonl") == ["literal[1].jsonl"]


def test_several_names_keep_their_order(here):
    here("b.jsonl", "a.jsonl", "set/c.jsonl")
    assert names(["b.jsonl", "a.jsonl", "set"]) == ["b.jsonl", "a.jsonl", "set/c.jsonl"]


def test_rows_name_their_file_unless_the_data_set_is_named_after_it(here):
    here("a.jsonl", "set/b.jsonl")
    assert find_parts("a.jsonl").row_files == (None,)
    assert find_parts("example").row_files == (None,)
    assert find_parts("set").row_files == ("set/b.jsonl",)
    assert find_parts(["a.jsonl", "set"]).row_files == ("a.jsonl", "set/b.jsonl")


def test_a_link_to_another_file_of_a_folder_is_no_file_of_its_own(here):
    here("set/day1.jsonl", "set/day2.jsonl")
    Path("set/latest.jsonl").symlink_to("day2.jsonl")
    with pytest.raises(DatasetError, match=r"set/latest\.jsonl \(the same file as set/day2\.jsonl\) is there twice"):
        find_parts("set")
    assert names("set/day*.jsonl") == ["set/day1.jsonl", "set/day2.jsonl"]


def test_a_file_that_is_missed_in_a_folder_or_glob_is_an_error(here):
    here("set/a.jsonl")
    Path("set/b.jsonl").symlink_to("gone")  # as of git-annex, where the content was not fetched
    for name in ("set", "set/*.jsonl"):
        with pytest.raises(DatasetError, match=r"^set/b\.jsonl: is a link to gone, which does not exist"):
            find_parts(name)
    Path("set/b.jsonl").unlink()
    os.mkfifo("set/b.jsonl")
    with pytest.raises(DatasetError, match=r"^set/b\.jsonl: is a pipe"):
        find_parts("set")


def saved(folder, *files, **more):
    folder = Path(folder)
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": file} for file in files]} | more))
    (folder / "dataset_info.json").write_text("{}")
    for file in files:
        (folder / file).write_bytes(b"")


def test_a_folder_that_datasets_saved_is_its_files_in_their_order(here):
    here()
    saved("set", "data-00001-of-00002.arrow", "data-00000-of-00002.arrow")
    assert names("set") == ["set/data-00001-of-00002.arrow", "set/data-00000-of-00002.arrow"]
    saved("old", "data.arrow", _indices_data_files=[{"filename": "indices.arrow"}])
    with pytest.raises(DatasetError, match="old: was saved by another version of datasets"):
        find_parts("old")
    Path("old/state.json").write_text("{")
    with pytest.raises(DatasetError, match=r"old/state\.json: is not JSON"):
        find_parts("old")


def test_of_several_saved_splits_one_must_be_named(here):
    here()
    for split in ("train", "test"):
        saved(f"all/{split}", "data.arrow")
    Path("all/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(DatasetError, match=r"all: holds the splits train, test; give one of them: all/train or all/te"):
        find_parts("all")
    assert names("all/test") == ["all/test/data.arrow"]
    Path("all/dataset_dict.json").write_text('{"splits": ["train"]}')
    assert names("all") == ["all/train/data.arrow"]


def test_the_fingerprint_of_one_file_is_that_of_its_bytes(here):
    here("a.jsonl", "set/a.jsonl")
    one = fingerprint(find_parts("a.jsonl"))
    assert one == hashlib.sha256(Path("a.jsonl").read_bytes()).hexdigest()
    Path("a.jsonl").rename("b.jsonl")
    assert fingerprint(find_parts("b.jsonl")) == one
    assert fingerprint(find_parts("set")) == hashlib.sha256(Path("set/a.jsonl").read_bytes()).hexdigest()
    assert fingerprint(find_parts("example")) == hashlib.sha256(EXAMPLE_FILE.read_bytes()).hexdigest()


def test_the_fingerprint_of_several_files_is_that_of_all_in_their_order(here):
    here("set/a.jsonl", "set/b.jsonl")

    def found(*dataset):
        return fingerprint(find_parts(list(dataset)))

    both = found("set")
    assert found("set/a.jsonl", "set/b.jsonl") == both == found("set/*.jsonl")
    assert found("set/b.jsonl", "set/a.jsonl") != both
    Path("set").rename("moved")
    assert found("moved") == both
    Path("moved/b.jsonl").write_text("{}\n")
    assert found("moved") != both
    (Path("moved") / "c.jsonl").write_text("{}\n")
    assert len({both, found("moved"), found("moved/a.jsonl"), found("moved/[ab].jsonl")}) == 4


def test_a_run_reads_none_of_the_files_that_it_writes(here):
    root = here("a.jsonl", "out/b.jsonl")
    manifest = root / "out" / "manifest.jsonl"
    for name in ("out", "./out", "out/*.jsonl", f"{root}/*/*.jsonl", "out/manifest.jsonl", "out/../out/manifest.jsonl"):
        assert would_read(name, manifest), name
    for name in (".", "a.jsonl", "*.jsonl", "out/b*.jsonl", "example", "hf:out:train", "s3://out/manifest.jsonl"):
        assert not would_read(name, manifest), name


@pytest.fixture
def bucket():
    """A file system in memory, which stands for object storage, with three files."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    for name in ("b.jsonl", "a.jsonl", "notes.md"):
        memory.pipe(f"/bucket/set/{name}", b'{"prompt": "a fox"}\n')
    yield memory
    memory.store.clear()


def test_folders_and_globs_of_object_storage_are_listed(bucket):
    both = ["memory:///bucket/set/a.jsonl", "memory:///bucket/set/b.jsonl"]
    for name in ("memory://bucket/set", "memory://bucket/set/", "memory://bucket/*/*.jsonl"):
        assert names(name) == both
    assert find_parts("memory://bucket/set").row_files == tuple(both)
    assert names("memory://bucket/set/a.jsonl") == ["memory://bucket/set/a.jsonl"]
    with pytest.raises(DatasetError, match="no data file is there"):
        find_parts("memory://bucket/*.csv")
    with pytest.raises(DatasetError, match="memory://bucket/none: cannot be read: FileNotFoundError"):
        find_parts("memory://bucket/none")


def test_the_name_of_a_web_address_is_without_what_is_secret_in_it():
    url = "https://me@host.org:8080/sets/a.csv.gz?token=secret#top"
    (part,) = find_parts(url).parts
    assert part == DataFile("https://host.org:8080/sets/a.csv.gz", url, "csv", "gz")
    assert find_parts(url).row_files == ("https://host.org:8080/sets/a.csv.gz",)
    with pytest.raises(DatasetError, match=r"https://host\.org/page: unknown format without a suffix"):
        find_parts("https://host.org/page?file=a.csv")


def test_a_check_needs_no_network(monkeypatch):
    def listed(*arguments, **options):
        pytest.fail("asked for a list")

    monkeypatch.setattr(fsspec.implementations.memory.MemoryFileSystem, "ls", listed)
    monkeypatch.setattr(fsspec.implementations.memory.MemoryFileSystem, "glob", listed)
    check_dataset(["memory://bucket/set", "memory://bucket/*.jsonl", "memory://bucket/a.jsonl"])
    check_dataset("example")
    with pytest.raises(DatasetError, match="Protocol not known"):
        check_dataset("nosuch://bucket/a.jsonl")
