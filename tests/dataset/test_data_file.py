"""One file of a data set: packed, damaged, in the place of a pointer, or elsewhere."""

import gzip
import hashlib
import sys
import traceback

import fsspec
import pytest

from t2i_core.dataset.data_file import DataFile
from t2i_core.dataset.sources import find_parts, fingerprint
from t2i_core.errors import DatasetError
from tests.dataset.files import PACK, WRITTEN, read, rows_of_prompts, values, write, zstd

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
WHOLE = {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "zstd"}


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize("packing", PACK)
def test_every_text_format_is_read_packed(tmp_path, suffix, packing):
    rows = rows_of_prompts()
    path = write(tmp_path / f"rows.{suffix.upper()}.{packing}", WRITTEN[suffix](rows))
    assert values(path) == ([{"prompt": row["prompt"]} for row in rows] if suffix == "txt" else rows)


@pytest.mark.parametrize("packing", PACK)
def test_files_that_were_packed_and_joined_are_read_to_their_end(tmp_path, packing):
    path = tmp_path / f"rows.txt.{packing}"
    path.write_bytes(PACK[packing](b"a fox\n") + PACK[packing](b"a cat\n"))
    assert values(path) == [{"prompt": "a fox"}, {"prompt": "a cat"}]


@pytest.mark.parametrize("packing", PACK)
def test_a_damaged_archive_is_an_error_and_no_row_less(tmp_path, packing):
    path = tmp_path / f"rows.jsonl.{packing}"
    whole = PACK[packing](b"".join(b'{"a": %d}\n' % n for n in range(5000)))
    damaged = [whole[:-5], whole[: len(whole) // 2], b"not packed at all"]
    if packing != "zst":  # which has no checksum as it is written here
        damaged.append(whole[:40] + b"\0\0\0\0" + whole[44:])
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(DatasetError) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: is no whole {WHOLE[packing]} file: ")
        assert str(error.value).endswith("; compress or download it again")
        assert "\n" not in str(error.value)


def test_a_zstd_file_that_needs_more_memory_than_usual_says_so(tmp_path):
    # A frame of a window of 2 GB and one raw block, as `zstd --long=31` writes it.
    path = tmp_path / "rows.txt.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd\x00" + bytes([21 << 3]) + (6 << 3 | 1).to_bytes(3, "little") + b"a fox\n")
    with pytest.raises(DatasetError, match="needs more than 128 MB of memory to decompress; compress it again without"):
        read(path)


@pytest.mark.parametrize("suffix", [*WRITTEN, "parquet", "arrow", *(f"jsonl.{packing}" for packing in PACK)])
def test_a_git_lfs_pointer_is_named_as_such(tmp_path, suffix):
    path = tmp_path / f"rows.{suffix}"
    for content, what in (
        (LFS, "a Git LFS pointer, not the data set itself; run git lfs pull"),
        ("/annex/objects/SHA256E-s5--abc.jsonl\n", "a git-annex pointer"),
    ):
        path.write_text(content)
        for use in (read, lambda path: DataFile("rows", str(path), "jsonl").digest()):
            with pytest.raises(DatasetError, match=f"is {what}"):
                use(path)


def test_the_digest_is_that_of_the_bytes_as_they_are_stored(tmp_path):
    path = write(tmp_path / "rows.jsonl.gz", '{"a":1}\n')
    assert DataFile("rows", str(path), "jsonl", "gz").digest() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_that_vanishes_is_an_error_in_one_line(tmp_path):
    file = DataFile("rows.jsonl", str(tmp_path / "rows.jsonl"), "jsonl")
    for use in (file.digest, lambda: file.open().__enter__()):
        with pytest.raises(DatasetError) as error:
            use()
        fix = "check the path and its permissions"
        assert str(error.value) == f"rows.jsonl: cannot be read: No such file or directory; {fix}"


@pytest.fixture
def bucket():
    """A file system in memory, which stands for object storage."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    yield memory.pipe
    memory.store.clear()


@pytest.mark.parametrize("suffix", ["jsonl", "csv.gz", "txt.zst"])
def test_files_in_object_storage_are_read(bucket, suffix):
    rows = rows_of_prompts()
    name, _, packing = suffix.partition(".")
    bucket(f"/bucket/rows.{suffix}", PACK.get(packing, bytes)(WRITTEN[name](rows).encode()))
    expected = [{"prompt": row["prompt"]} for row in rows] if name == "txt" else rows
    assert values(f"memory://bucket/rows.{suffix}") == expected


def test_a_file_that_is_not_in_object_storage_is_an_error_in_one_line(bucket):
    with pytest.raises(DatasetError) as error:
        read("memory://bucket/rows.jsonl")
    assert str(error.value).startswith("memory://bucket/rows.jsonl: cannot be read: FileNotFoundError")
    assert str(error.value).endswith("; check the address, your access and the network")
    assert "\n" not in str(error.value)


def test_no_message_shows_the_signature_of_an_address(monkeypatch):
    url = "https://host.org/rows.jsonl?signature=secret"

    class FileSystem:
        def open(self, path, mode):
            raise FileNotFoundError(url)

    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url, **options: (FileSystem(), url))
    for use in (read, lambda url: fingerprint(find_parts(url))):
        with pytest.raises(DatasetError) as error:
            use(url)
        assert str(error.value).startswith(
            "https://host.org/rows.jsonl: cannot be read: FileNotFoundError: https://host"
        )
        assert "secret" not in "".join(traceback.format_exception(error.value))


def test_a_pointer_in_object_storage_is_named_as_such(bucket):
    bucket("/bucket/rows.jsonl", LFS.encode())
    with pytest.raises(DatasetError, match="is a Git LFS pointer"):
        read("memory://bucket/rows.jsonl")


def test_a_protocol_whose_package_is_missing_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(DatasetError) as error:
        read("s3://bucket/rows.jsonl")
    missing = "s3:// needs a package that is not installed; pip install 'text2image[remote]'"
    assert str(error.value) == f"s3://bucket/rows.jsonl: {missing}"
    with pytest.raises(DatasetError, match="Protocol not known: nosuch; write s3://, https:// or hf://, or download"):
        read("nosuch://bucket/rows.jsonl")


def test_a_gzip_file_within_a_gzip_file_is_called_what_it_is(tmp_path):
    with pytest.raises(DatasetError, match="is a gzip file"):
        read(write(tmp_path / "rows.jsonl.gz", gzip.compress(b'{"a":1}\n')))
    assert values(write(tmp_path / "rows.txt", b"a fox\n")) == [{"prompt": "a fox"}]
    assert zstd(b"")[:4] == b"\x28\xb5\x2f\xfd"
