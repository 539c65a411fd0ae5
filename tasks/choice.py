"""The task that writes down which images are kept."""

from typing import Any

from prefect import task

from t2i_core.hashing import file_sha256
from t2i_core.options.selection import SelectionOptions
from t2i_core.output.finished import FinishedOutput
from t2i_core.output.selection import CHOICE, choose, write_choice
from tasks.caching import TASK_OPTIONS, VersionedKey


@task(
    name="write choice",
    task_run_name=f"write {CHOICE}",
    cache_policy=VersionedKey(version="choice-v1"),
    **TASK_OPTIONS,
)
def write_choice_task(cache_key: str, finished: FinishedOutput, selection: SelectionOptions) -> dict[str, Any]:
    """Choose, and write each image with the reason why it is left out; return counts, and the digest of the file."""
    choice = choose(finished, selection)
    write_choice(finished, choice)
    path = finished.workspace.root / CHOICE
    return {"kept": int(choice.keep.sum()), "reasons": choice.counts(), "sha256": file_sha256(path)}
