"""What is said of a data set as a whole: groups of near-duplicates among its images."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from t2i_core.output.score_columns import HASH, hash_values
from t2i_core.planning.catalog import Catalog
from t2i_core.scoring.duplicates import near_duplicates
from t2i_core.storage.keys import as_keys
from t2i_core.storage.score_table import PIXELS, Scores


def duplicate_groups(catalog: Catalog, scores: Scores, distance: int) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """Return the hashes of the pixels of a data set that have a perceptual hash, and for each the number of its group.

    Groups are numbered by the position of their first image in the data set.
    """
    pixels = catalog.index.facts([PIXELS])[PIXELS]
    found, rows = [], []
    for chunk in catalog.chunks([]):
        here = pixels.take(pa.array(chunk.index[chunk.present]))
        index = scores.find(here, here)
        found.append(as_keys(here)[index >= 0])
        rows.append(index[index >= 0])
    keys, places = np.concatenate([np.empty(0, "S64"), *found]), np.concatenate([np.empty(0, np.int64), *rows])
    first = np.sort(np.unique(keys, return_index=True)[1])
    hashes = hash_values(scores.columns[HASH].take(pa.array(places[first])))
    texts = pa.array([key.decode() for key in keys[first].tolist()], pa.string())
    return texts, near_duplicates(hashes, distance)
