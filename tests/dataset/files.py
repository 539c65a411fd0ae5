"""Data set files for the tests of readers: how they are written, and what is read from them."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa

from t2i_core.dataset.readers import RawRow, open_source

PROMPTS = ["a fox at dusk", "黄昏时分的狐狸", "🦊 in the 🌲🌲", "ثعلب في الثلج", 'a "quoted", comma', "x" * 10_000]


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


PACK = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}


def write(path: Path, content: str | bytes) -> Path:
    """Write a file, packed as its suffix says; return its path."""
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(PACK.get(path.suffix[1:], bytes)(data))
    return path


def read(dataset: Path | str | list[str]) -> list[RawRow]:
    return list(open_source(dataset if isinstance(dataset, list) else str(dataset)).rows)


def values(dataset: Path | str | list[str]) -> list[object]:
    """The values of rows of which none is rejected."""
    rows = read(dataset)
    assert all(row.rejection is None for row in rows), rows
    return [row.value for row in rows]


def reasons(dataset: Path | str | list[str]) -> dict[int, tuple[int | None, str]]:
    """Rejected rows: {index: (line, reason)}."""
    return {row.index: (row.line, row.rejection.reason) for row in read(dataset) if row.rejection}


def csv_text(prompts: list[str]) -> str:
    return "prompt,n\n" + "".join('"' + p.replace('"', '""') + f'",{i}\n' for i, p in enumerate(prompts))


def rows_of_prompts(prompts: list[str] = PROMPTS) -> list[dict[str, str]]:
    return [{"prompt": prompt, "n": str(n)} for n, prompt in enumerate(prompts)]


# Suffix -> the text of a file with these rows.
WRITTEN = {
    "jsonl": lambda rows: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
    "ndjson": lambda rows: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
    "json": lambda rows: json.dumps(rows, indent=1),
    "csv": lambda rows: csv_text([row["prompt"] for row in rows]),
    "tsv": lambda rows: "prompt\tn\n" + "".join(f"{row['prompt']}\t{row['n']}\n" for row in rows),
    "txt": lambda rows: "".join(row["prompt"] + "\n" for row in rows),
}
