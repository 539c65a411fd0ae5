"""The tasks of scoring: a chunk of images, and the near-duplicates among all."""

from collections.abc import Callable, Sequence

from prefect import task

from t2i_core.output.score_columns import write_duplicates
from t2i_core.planning.catalog import Catalog
from t2i_core.scoring.data_set import duplicate_groups
from t2i_core.scoring.pending import ScoreChunk
from t2i_core.scoring.processes import Score
from t2i_core.scoring.work import Results
from t2i_core.storage.score_table import ScoreTable
from tasks.caching import TASK_OPTIONS, VersionedKey


@task(
    name="score images",
    task_run_name="score {chunk.title}",
    cache_policy=VersionedKey(version="score-v1"),
    **TASK_OPTIONS,
)
def score_chunk_task(
    cache_key: str, chunk: ScoreChunk, tables: Sequence[ScoreTable], score: Score, on_images: Callable[[int], None]
) -> dict[str, dict[str, str]]:
    """Score a chunk of images, and keep the scores in a file for each scorer.

    Return scorer -> key -> why the image has no scores.
    """
    tables = [tables[number] for number in chunk.scorers]
    results = [Results() for _ in tables]
    for batch in score(chunk.scorers, chunk.items):
        for result, part in zip(results, batch, strict=True):
            result.extend(part)
        on_images(len(batch[0].items) + len(batch[0].failures))
    for table, result in zip(tables, results, strict=True):
        if result.items:
            table.write_part(chunk.digest, result.table(reads_prompt=table.reads_prompt))
    return {table.name: result.failures for table, result in zip(tables, results, strict=True) if result.failures}


@task(
    name="find duplicates",
    task_run_name="find duplicates",
    cache_policy=VersionedKey(version="duplicates-v1"),
    **TASK_OPTIONS,
)
def find_duplicates_task(cache_key: str, catalog: Catalog, table: ScoreTable, distance: int) -> int:
    """Group the images of the data set whose perceptual hashes are nearly equal; return how many groups there are."""
    pixels, groups = duplicate_groups(catalog, table.read(), distance)
    write_duplicates(catalog.workspace.scores, pixels, groups, distance, of=cache_key)
    return len(set(groups.tolist()))
