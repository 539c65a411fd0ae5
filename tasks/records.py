"""The task that collects image records: the results of shards, merged into one table."""

from collections.abc import Iterator
from pathlib import Path

from prefect import task

from t2i_core.storage.files import is_stale, remove_if_stale
from t2i_core.storage.image_store import Scan
from t2i_core.storage.leases import in_use
from t2i_core.storage.record_merge import merge_in_ranges
from t2i_core.storage.records import RECORD_TABLE
from t2i_core.storage.tables import open_table, table_writer
from t2i_core.storage.workspace import Workspace
from tasks.caching import TASK_OPTIONS, ResultCache, VersionedKey
from tasks.generation import SHARD_KEY

# In the metadata of a record table: the results that it holds, a line each.
_ABSORBED = b"absorbed"


@task(
    name="collect records",
    task_run_name="collect records",
    cache_policy=VersionedKey(version="records-v2"),
    **TASK_OPTIONS,
)
def collect_records_task(cache_key: str, output: str, scan: Scan) -> str:
    """Merge the results of shards that the last table lacks, checked against the files; return the table's name."""
    return collect_records(cache_key, output, scan)


def collect_records(cache_key: str, output: str, scan: Scan) -> str:
    """Do the same without Prefect, for a run that was told to stop."""
    workspace = Workspace(output)
    results = ResultCache(workspace.results, retries=0)
    listing = results.listing(SHARD_KEY)
    previous = _latest(workspace.records)
    absorbed = _absorbed(previous)

    def new() -> Iterator[object]:
        # In the order in which they were written: a later record of a key wins.
        for name, size, mtime_ns in sorted(listing, key=lambda entry: entry[2]):
            if _mark(name, size, mtime_ns) not in absorbed:
                shard = results.read(name)
                found = shard.get("records") if isinstance(shard, dict) else None
                yield from found if isinstance(found, list) else ()

    marks = "\n".join(_mark(*entry) for entry in listing)
    target = workspace.records / f"{cache_key}.parquet"
    with table_writer(target, RECORD_TABLE.with_metadata({_ABSORBED: marks.encode()})) as writer:
        for merged in merge_in_ranges(previous, new(), scan, workspace.images, workspace.records):
            writer.write_table(merged.replace_schema_metadata({_ABSORBED: marks.encode()}))
    if len(in_use(workspace.leases)) < 2:  # beside this run, no other that reads a table, however old
        for path in workspace.records.glob("*.parquet"):
            if path != target:
                remove_if_stale(path)
    return target.name


def compact_results(workspace: Workspace, cache: ResultCache) -> None:
    """Remove the results of shards that a table of earlier runs holds, once there are newer ones.

    So what is left after many runs is one table, and the results of the last run that made something. Only a table that
    is an hour old counts: no other run can still be about to write one that lacks these results.
    """
    table = _latest(workspace.records)
    if table is None or not is_stale(table):
        return
    absorbed = _absorbed(table)
    results = cache.listing(SHARD_KEY)
    old = [entry[0] for entry in results if _mark(*entry) in absorbed]
    if len(old) < len(results):
        for name in old:
            cache.forget(name)


def _mark(name: str, size: int, mtime_ns: int) -> str:
    return f"{name} {size} {mtime_ns}"


def _absorbed(table: Path | None) -> set[str]:
    """Return the marks of the results that a record table holds."""
    if table is None:
        return set()
    with open_table(table) as file:
        return set((file.schema_arrow.metadata or {}).get(_ABSORBED, b"").decode().split("\n"))


def _latest(folder: Path) -> Path | None:
    return max(folder.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns, default=None)
