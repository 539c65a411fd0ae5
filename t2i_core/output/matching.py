"""Which images of several outputs belong together: those of the same prompt."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from t2i_core.storage.keys import find
from t2i_core.storage.tables import read_chunks

Index = npt.NDArray[np.int64]


def match_images(tables: Sequence[Path]) -> Index:
    """Return positions in each `images.parquet`, a row for each table: those of one column belong together.

    Images belong together that have the same prompt, before `--prompt-template`, and the same number among the images
    of that prompt; of prompts that occur several times the first belongs to the first, and so on. The order is that of
    the first table. Some 40 bytes an image are in memory.
    """
    ids = [_ids(table) for table in tables]
    shared = np.arange(len(ids[0]))
    columns = []
    for other in ids:
        order = np.argsort(other, kind="stable")
        places = find(ids[0], other[order])
        columns.append(np.where(places >= 0, order[places], -1) if len(order) else np.full(len(shared), -1))
    found = np.stack(columns)
    return found[:, (found >= 0).all(axis=0)]


def _ids(table: Path) -> npt.NDArray[np.uint64]:
    """Return for each image a number that images of other outputs share if they belong together."""
    prompts, places, numbers = [np.empty(0, np.uint64)], [np.empty((2, 0), np.int64)], [np.empty(0, np.int64)]
    for chunk in read_chunks(table, ["prompt", "source_prompt", "row", "condition", "image"]):
        texts = zip(chunk["source_prompt"].to_pylist(), chunk["prompt"].to_pylist(), strict=True)
        prompts.append(np.fromiter((_number(source or prompt) for source, prompt in texts), np.uint64, len(chunk)))
        places.append(np.stack([chunk[name].to_numpy() for name in ("row", "condition")]))
        numbers.append(chunk["image"].to_numpy())
    prompt, place = np.concatenate(prompts), np.concatenate(places, axis=1)
    begins = (np.diff(place, axis=1, prepend=-1) != 0).any(axis=0)
    first = pd.Series(prompt[begins])
    occurrence = first.groupby(first).cumcount().to_numpy()
    frame = pd.DataFrame(
        {"prompt": prompt, "occurrence": occurrence[np.cumsum(begins) - 1], "image": np.concatenate(numbers)}
    )
    return pd.util.hash_pandas_object(frame, index=False).to_numpy().astype(np.uint64, copy=False)


def _number(prompt: str) -> int:
    return int.from_bytes(hashlib.blake2b(prompt.encode("utf-8"), digest_size=8).digest(), "little")
