"""What is known of images: the results of shards, compacted into one table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from prefect import task

from t2i_core.records import compact
from t2i_core.store import Scan, Store, atomic_write, remove_if_stale
from tasks.caching import TASK_OPTIONS, RecipeKey, ResultCache
from tasks.generation import SHARD_RECIPE

_ABSORBED = b"absorbed"


@task(
    name="collect records", task_run_name="collect records", cache_policy=RecipeKey(recipe="records-v1"), **TASK_OPTIONS
)
def collect_records_task(cache_key: str, output: str, scan: Scan) -> str:
    """Absorb the results of shards that the last table lacks, check all against the files; name of the table."""
    return collect_records(cache_key, output, scan)


def collect_records(cache_key: str, output: str, scan: Scan) -> str:
    """The same without Prefect, for a run that was told to stop."""
    store = Store(output)
    results = ResultCache(store.results, retries=0)
    listing = results.listing(SHARD_RECIPE)
    previous = _latest(store.records)
    table = pq.read_table(previous) if previous else None
    absorbed = set((table.schema.metadata or {}).get(_ABSORBED, b"").decode().split("\n")) if table else set()

    def new() -> Iterator[dict[str, Any]]:
        # In the order they were written: a later record of a key wins.
        for name, size, mtime_ns in sorted(listing, key=lambda entry: entry[2]):
            if f"{name} {size} {mtime_ns}" not in absorbed:
                yield from (results.read(name) or {}).get("records", [])

    compacted = compact(table, new(), scan, store)
    marks = "\n".join(f"{name} {size} {mtime_ns}" for name, size, mtime_ns in listing)
    compacted = compacted.replace_schema_metadata({_ABSORBED: marks.encode()})
    target = store.records / f"{cache_key}.parquet"
    with atomic_write(target) as file:
        pq.write_table(compacted, file, compression="zstd")
    for path in store.records.glob("*.parquet"):
        if path != target:
            remove_if_stale(path)  # not at once: another run may be about to read it
    return target.name


def _latest(folder: Path) -> Path | None:
    return max(folder.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns, default=None)
