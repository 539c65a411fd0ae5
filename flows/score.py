"""Scores of the images of a finished output, as columns of its images.parquet.

python -m flows.score OUT --score stats --score phash
"""

if __name__ == "__main__":
    from flows.commands import main

    raise SystemExit(main("score"))

import logging
from collections import Counter
from typing import Any

from prefect.client.schemas.objects import State

from flows.finished import open_catalog
from flows.gallery import renew_gallery
from flows.outcomes import ended, refused
from flows.scorers import ScorerGroup, open_scorers
from flows.signature import takes_options
from t2i_core.errors import ConfigError, UserError
from t2i_core.options.score import ScoreOptions
from t2i_core.output.score_columns import HASH, has_duplicates, write_score_columns
from t2i_core.planning.catalog import Catalog
from t2i_core.reports.scores import score_lines
from t2i_core.scoring.pending import count_pending, pending_chunks
from t2i_core.storage.score_table import ScoreTable, show_tables, shown_columns
from t2i_core.storage.tables import use_system_allocator
from t2i_core.storage.workspace import Workspace
from tasks.caching import ResultCache, cache_key, data
from tasks.progress import progress
from tasks.scores import find_duplicates_task, score_chunk_task
from tasks.server_wait import waiting_as_asked
from tasks.settings import ConfiguredFlow, apply_settings

log = logging.getLogger("flows.score")

RETRIES = 2
# Images of a task; what a killed run loses.
CHUNK = 1024


class Score:
    """One run: open the output, score what lacks scores, and write the columns."""

    def __init__(self, options: ScoreOptions) -> None:
        self.options = options
        self.workspace = Workspace(options.output)
        self.cache = ResultCache(self.workspace.results, RETRIES)
        self.failures: Counter[str] = Counter()  # scorer -> images without scores
        self.reasons: dict[str, str] = {}  # scorer -> the first reason

    def __call__(self) -> State[Any]:
        """Run the stages."""
        finished, catalog = open_catalog(self.options.output)
        groups = open_scorers(self.options, self.workspace, self.cache)
        scored = max(self.score(group, catalog) for group in groups)
        tables = [table for group in groups for table in group.tables]
        for table in tables:
            table.merge()
        self.check_columns(tables)
        self.find_duplicates(catalog, tables)
        show_tables(self.workspace.scores, tables)
        write_score_columns(self.workspace)
        lines = [
            f"scored    {scored} of {finished.plan.images} images; the others had their scores, or have no picture"
        ]
        lines += score_lines(finished.provenance)
        lines += [f"failed    {name}: {count} images, {self.reasons[name]}" for name, count in self.failures.items()]
        lines.append(f"table     {finished.provenance}")
        log.info("\n".join(lines))
        renew_gallery(self.workspace, self.cache)
        failed = f", {self.failures.total()} failures" if self.failures else ""
        return ended(f"{scored} images scored{failed}", too_many=bool(self.failures))

    def score(self, group: ScorerGroup, catalog: Catalog) -> int:
        """Score the images that lack scores of a group; return how many."""
        known = [table.read() for table in group.tables]
        pending = count_pending(catalog, known)
        if not pending:
            return 0
        names = ", ".join(table.name for table in group.tables)
        log.info("score     %d images: %s", pending, names)
        task: Any = self.cache.bind(score_chunk_task, refresh=True)  # they lack scores, whatever is stored
        with (
            group.scoring(self.workspace.images, pending) as score,
            progress(pending, [f"scores-{names}"]) as shown,
        ):
            for chunk in pending_chunks(catalog, known, CHUNK):
                versions = [group.tables[number].file.name for number in chunk.scorers]
                failed = task(cache_key(chunk.digest, versions), *data(chunk, group.tables, score, shown.add_images))
                for name, reasons in failed.items():
                    self.failures[name] += len(reasons)
                    self.reasons.setdefault(name, next(iter(reasons.values())))
        return pending

    def check_columns(self, tables: list[ScoreTable]) -> None:
        """Refuse a scorer whose columns another scorer has given already.

        Raises:
            ConfigError: naming both.
        """
        new = {table.name: table.columns() for table in tables}
        shown = shown_columns(self.workspace.scores) | new
        for name in new:
            for other in shown.keys() - {name}:
                if both := sorted({*shown[name]} & {*shown[other]}):
                    raise ConfigError([f"score: {name} and {other} both give {both[0]}; rename your function"])

    def find_duplicates(self, catalog: Catalog, tables: list[ScoreTable]) -> None:
        """Find the near-duplicates of the whole data set, where there are perceptual hashes."""
        for table in tables:
            if HASH in table.columns():
                status = table.file.stat()
                key = cache_key(
                    [table.file.name, status.st_size, status.st_mtime_ns],
                    [catalog.plan.digest, catalog.index.name, self.options.duplicate_distance],
                )

                def still_there(groups: int, key: str = key) -> bool:
                    return has_duplicates(self.workspace.scores, key)

                arguments = (catalog, table, self.options.duplicate_distance)
                self.cache.call(find_duplicates_task, key, *arguments, is_valid=still_there)


@takes_options(ScoreOptions)
def _score(**values: Any) -> Any:  # a `State[Any]`, which another process could not look up
    """Score the images of a finished output."""
    apply_settings()
    use_system_allocator()
    try:
        return Score(waiting_as_asked(ScoreOptions.from_values(values)))()
    except UserError as error:
        return refused(error)


score = ConfiguredFlow(_score, name="score")
