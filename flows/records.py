"""What is known of the images of an output: the record table, through its cached task."""

from pathlib import Path

from t2i_core.storage.image_store import Scan
from t2i_core.storage.keys import find
from t2i_core.storage.record_index import RecordIndex
from t2i_core.storage.tables import give_memory_back
from t2i_core.storage.workspace import Workspace
from tasks.caching import ResultCache, cache_key
from tasks.generation import SHARD_KEY
from tasks.records import collect_records, collect_records_task, compact_results


def collect_index(workspace: Workspace, cache: ResultCache, only_run: str | None = None) -> tuple[RecordIndex, Scan]:
    """Merge the results of shards, checked against the stored images; return what is known, and the scan.

    Results that an earlier table holds are removed on the way.

    `only_run`: images of other runs do not count.
    """

    def still_there(name: str) -> bool:
        is_ours = Path(name).name == name  # and no path out of the folder
        return is_ours and not scan.unchecked.any() and (workspace.records / name).is_file()

    compact_results(workspace, cache)
    scan = scan_images(workspace)
    give_memory_back()
    key = records_key(scan, cache)
    name = cache.call(collect_records_task, key, str(workspace.root), scan, is_valid=still_there)
    index = RecordIndex(workspace.records / name, only_run, scan.keys)
    give_memory_back()
    return index, workspace.checked_images.note(scan, ~scan.unchecked | (find(scan.keys, index.keys) >= 0))


def collect_at_once(workspace: Workspace, cache: ResultCache) -> tuple[RecordIndex, Scan]:
    """Return the same without Prefect, for a run that was told to stop; what the table takes in is kept as well."""
    scan = scan_images(workspace)
    key = records_key(scan, cache)
    table = workspace.records / f"{key}.parquet"
    if scan.unchecked.any() or not table.is_file():
        collect_records(key, str(workspace.root), scan)
    return RecordIndex(table, stored=scan.keys), scan


def scan_images(workspace: Workspace) -> Scan:
    """Return the stored images, with a mark at those that the record table has to look at."""
    return workspace.checked_images.marked(workspace.images.scan())


def records_key(scan: Scan, cache: ResultCache) -> str:
    """Return the digest of what a record table is made of: the files, and the results of shards."""
    return cache_key(scan.digest(), cache.listing(SHARD_KEY))
