"""One file of a data set: opened and decompressed, on this machine or through fsspec."""

import bz2
import gzip
import hashlib
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from t2i_core.dataset.content_check import BUFFER, ContentCheck
from t2i_core.dataset.reading import short
from t2i_core.errors import DatasetError, UserError
from t2i_core.local_paths import is_url

PACKINGS = ("gz", "bz2", "xz", "zst")
# Formats of which parts are read in any order.
AT_RANDOM = ("parquet", "arrow")

# What stands in a repository in place of a file -> the command that brings the file.
_POINTERS = {
    b"version https://git-lfs.github.com/spec/v1": ("a Git LFS pointer", "git lfs pull"),
    b"/annex/objects/": ("a git-annex pointer", "git annex get"),
}
_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of the data set.

    name: as messages show it. location: its path, or a URL. format: a key of `READERS`. packing: how it is compressed,
    one of `PACKINGS`; empty where it is not. check: what the file held when it was hashed; None: it was not.
    """

    name: str
    location: str
    format: str
    packing: str = ""
    check: ContentCheck | None = field(default=None, compare=False, repr=False)

    def hashed(self) -> "DataFile":
        """Return the same file, of which `open` returns what is there now, or `refuse_changed` says that it did not.

        Raises:
            DatasetError: as `open`.
        """
        return replace(self, check=ContentCheck(self.name, self.digest()))

    def refuse_changed(self) -> None:
        """Refuse a file of which something else was read than was hashed.

        Raises:
            DatasetError: naming it.
        """
        if self.check is not None:
            self.check.refuse_changed()

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the file for the block, decompressed.

        Raises:
            DatasetError: where it cannot be opened or read, and for a pointer of Git LFS in its place.
        """
        with self._named_errors(), ExitStack() as opened:
            raw = opened.enter_context(self._open_as_it_is())
            self._refuse_pointer(raw)
            if self.check is not None:
                check = self.check.at_random if self.format in AT_RANDOM else self.check.in_order
                raw = opened.enter_context(check(raw))
            yield opened.enter_context(_unpacked(raw, self.packing)) if self.packing else raw

    def digest(self) -> str:
        """Return the SHA-256 of the bytes of the file, as they are stored, or were when it was `hashed`.

        Raises:
            DatasetError: as `open`.
        """
        if self.check is not None:
            return self.check.sha256
        with self._named_errors(), self._open_as_it_is() as raw:
            self._refuse_pointer(raw)
            return hashlib.file_digest(raw, "sha256").hexdigest()

    def _open_as_it_is(self) -> io.BufferedReader:
        if not is_url(self.location):
            return cast(io.BufferedReader, Path(self.location).open("rb", buffering=BUFFER))
        file_system, path = file_system_of(self.name, self.location)
        return io.BufferedReader(cast(io.RawIOBase, file_system.open(path, "rb")), BUFFER)

    def _refuse_pointer(self, raw: io.BufferedReader) -> None:
        head = raw.peek(64)
        for start, (what, command) in _POINTERS.items():
            if head.startswith(start):
                raise DatasetError(
                    f"{self.name}: is {what}, not the data set itself; run {command}, or download the file again"
                )

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Turn the errors of opening and reading into a DatasetError that names the file."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if isinstance(error, _DAMAGED) or (self.packing and isinstance(error, OSError) and error.errno is None):
                raise DatasetError(f"{self.name}: {_what_is_damaged(self.packing, error)}") from None
            if is_url(self.location):  # the libraries raise what their many back ends raise
                raise remote_error(self.name, self.location, error) from None
            if isinstance(error, OSError):
                raise cannot_be_read(self.name, error) from None
            raise


def cannot_be_read(name: str, error: OSError) -> DatasetError:
    """Return the error for a file that the operating system does not open or read."""
    return DatasetError(f"{name}: cannot be read: {error.strerror or error}; check the path and its permissions")


def remote_error(name: str, url: str, error: Exception) -> DatasetError:
    """Return the error for a file that cannot be fetched. It has the name only, for the URL may bear a signature."""
    text = str(error).replace(url, name)
    why = f"{type(error).__name__}: {short(text)}" if text.strip() else type(error).__name__
    return DatasetError(f"{name}: cannot be read: {why}; check the address, your access and the network")


def file_system_of(name: str, url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it.

    A new one each time: a file system remembers listings, and a worker lives for many runs.

    Raises:
        DatasetError: for a protocol that fsspec does not know, or whose package is missing.
    """
    import fsspec

    protocol = url.partition("://")[0]
    try:
        file_system, path = fsspec.core.url_to_fs(url, skip_instance_cache=True)
    except ImportError as error:
        fix = "pip install 'text2image[remote]'" if protocol in ("http", "https", "s3") else short(error)
        raise DatasetError(f"{name}: {protocol}:// needs a package that is not installed; {fix}") from None
    except ValueError as error:
        fix = "write s3://, https:// or hf://, or download the file"
        raise DatasetError(f"{name}: {short(error)}; {fix}") from None
    except Exception as error:
        raise remote_error(name, url, error) from None
    return file_system, path


def _unpacked(raw: io.BufferedReader, packing: str) -> BinaryIO:
    if packing == "gz":
        opened: Any = gzip.GzipFile(fileobj=raw)
    elif packing == "bz2":
        opened = bz2.BZ2File(raw)
    elif packing == "xz":
        opened = lzma.LZMAFile(raw)  # noqa: SIM115 - the caller closes it
    else:
        import pyarrow as pa

        # Not zstandard, whose stream ends without an error where a file is cut off.
        opened = pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")
    return cast(BinaryIO, io.BufferedReader(opened, BUFFER))


def _what_is_damaged(packing: str, error: Exception) -> str:
    if "too much memory" in str(error):
        return "needs more than 128 MB of memory to decompress; compress it again without --long"
    whole = {"gz": "gzip", "bz2": "bzip2", "zst": "zstd"}.get(packing, packing)
    return f"is no whole {whole} file: {short(error)}; compress or download it again"
