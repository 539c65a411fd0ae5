"""The encoding of a text file: known by its byte order mark, or UTF-8, or refused with what it is likely to be."""

import codecs
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from t2i_core.dataset.data_file import DataFile
from t2i_core.errors import DatasetError, shorten

UTF8_MARK = codecs.BOM_UTF8
# The longer mark first: that of UTF-32 begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# How files begin that are no text -> what they are, and what to do.
_MAGIC = {
    b"\x1f\x8b": "a gzip file; let its name end in .gz",
    b"BZh": "a bzip2 file; let its name end in .bz2",
    b"\xfd7zXZ\0": "an xz file; let its name end in .xz",
    b"\x28\xb5\x2f\xfd": "a zstd file; let its name end in .zst",
    b"PAR1": "a Parquet file; let its name end in .parquet",
    b"PK\x03\x04": "a zip archive or an Excel file; unpack it, or save the table as CSV",
}
# What prompts are written in, the likelier of two that fit first; charset-normalizer would also name the code pages of
# old Macs and mainframes.
_CANDIDATES = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258"),
    *("gb18030", "big5", "cp932", "euc_jp", "cp949", "koi8_r", "cp874"),
]
_ICONV_NAMES = {"gb18030": "GB18030", "big5": "BIG5", "euc_jp": "EUC-JP", "koi8_r": "KOI8-R"}

# A file is in another encoding where most of its lines are not UTF-8; or a good part of them, and most of those that
# could show it, for a line of ASCII alone is UTF-8 by chance. Fewer are single bad lines.
_BAD_LINES = 10
_BAD_SHARE = 0.1
_JUDGED = 500  # lines by which the other encoding is guessed


def marked_encoding(sample: bytes) -> str | None:
    """Return the encoding that a byte order mark other than that of UTF-8 names."""
    return next((name for mark, name in _MARKS.items() if sample.startswith(mark)), None)


def in_utf8(file: DataFile, chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Yield text in another encoding as UTF-8.

    Half of a surrogate pair stays what it is, which is no UTF-8: it costs its own line.

    Raises:
        DatasetError: where the text is not in that encoding.
    """
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
    try:
        for chunk in chunks:
            if text := decoder.decode(chunk):
                yield text.encode("utf-8", "surrogatepass")
        yield decoder.decode(b"", final=True).encode()
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{file.name}: begins as {encoding.upper()} and does not go on so: {error.reason}; save it as UTF-8"
        ) from None


def refuse_other_encodings(file: DataFile, sample: bytes, *, is_whole: bool) -> None:
    """Refuse a file whose beginning is not UTF-8.

    Raises:
        DatasetError: with the encoding that it is likely to be in, and the command that converts it.
    """
    for magic, what in _MAGIC.items():
        if sample.startswith(magic):
            raise DatasetError(f"{file.name}: is {what}")
    if wide := _unmarked_utf16(sample):
        raise DatasetError(f"{file.name}: is {wide} without a byte order mark; {_conversion(file, wide)}")
    # The lines of a .json file say little: it may have but one.
    units = re.split(rb"[\r\n}]" if file.format == "json" else rb"[\r\n]", sample)
    if not is_whole and len(units) > 1:
        units.pop()  # cut off
    units = [unit for unit in units if unit.strip()]
    bad = [unit for unit in units if not _is_utf8(unit)]
    wide_units = sum(not unit.isascii() for unit in units)
    most = len(bad) > max(1, len(units) / 2)
    many = len(bad) >= max(_BAD_LINES, len(units) * _BAD_SHARE) and len(bad) > wide_units / 2
    if most or many:
        raise other_encoding(file, bad)


def other_encoding(file: DataFile, lines: Sequence[bytes]) -> DatasetError:
    """Return the error for a file of which most lines, such as these, are not UTF-8."""
    from charset_normalizer import from_bytes

    matches = from_bytes(b"\n".join(lines[:_JUDGED]), cp_isolation=_CANDIDATES)
    best = matches.best()
    if best is None:
        return DatasetError(f"{file.name}: is not UTF-8, nor text in another encoding; save the data set as UTF-8")
    equal = [match for match in matches if (match.chaos, match.coherence) == (best.chaos, best.coherence)]
    encoding = min((name for match in equal for name in match.could_be_from_charset), key=_CANDIDATES.index)
    name = _ICONV_NAMES.get(encoding, encoding.upper())
    shown = shorten(lines[0].decode(encoding, "replace").strip())
    return DatasetError(
        f"{file.name}: is not UTF-8, but most likely {name}, in which it has {shown}; {_conversion(file, name)}"
    )


def _conversion(file: DataFile, encoding: str) -> str:
    """Return the command that converts a file to UTF-8."""
    path = Path(file.location)
    unpacked = path.with_suffix("") if file.packing else path
    new = unpacked.with_suffix(f".utf8{unpacked.suffix}")
    how = "unpack it and convert it with" if file.packing else "convert it with"
    return f"{how}: iconv -f {encoding} -t UTF-8 {shlex.quote(str(unpacked))} > {shlex.quote(str(new))}"


def _unmarked_utf16(sample: bytes) -> str | None:
    """Return which UTF-16 a text is by its zero bytes: in that of Western text every other byte is one."""
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    half = len(sample) // 2
    if max(even, odd) < 4 or max(even, odd) < half / 2 or min(even, odd) > half / 20:
        return None
    return "UTF-16LE" if odd > even else "UTF-16BE"


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
