"""The scorers that a run asks for, with the tables of their scores; models are loaded only if images lack scores."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from t2i_core.errors import ConfigError
from t2i_core.models.scorer_model import ScorerModel, scorer_model_fingerprint
from t2i_core.options.score import PYIQA, ScoreOptions, ScorerRequest
from t2i_core.scoring.built_in import make_scorer, needs_model
from t2i_core.scoring.interface import Scorer
from t2i_core.scoring.processes import Score, cores, scoring_here, scoring_processes
from t2i_core.storage.image_store import ImageStore
from t2i_core.storage.score_table import ScoreTable
from t2i_core.storage.workspace import Workspace
from tasks.caching import ResultCache, cache_key
from tasks.models import fetch_scorer_model_task, resolve_scorer_model_task

# Fewer images are scored in this process: to start others takes some seconds.
FEW_IMAGES = 256


@dataclass(frozen=True, slots=True)
class OpenScorer:
    """A scorer that is ready, what asked for it, and the table of its scores."""

    request: ScorerRequest
    scorer: Scorer
    table: ScoreTable


@dataclass(frozen=True, slots=True)
class ScorerGroup:
    """Scorers that see each image together: all that need no model, or one with a model."""

    scorers: Sequence[OpenScorer]
    options: ScoreOptions

    @property
    def tables(self) -> list[ScoreTable]:
        """The tables of their scores."""
        return [one.table for one in self.scorers]

    def scoring(self, images: ImageStore, pending: int) -> AbstractContextManager[Score]:
        """Return what scores `pending` images, in this process or in several."""
        scorers = [one.scorer for one in self.scorers]
        if needs_model(self.scorers[0].request):
            return nullcontext(scoring_here(scorers, images, self.options.batch_size))
        processes = cores() if self.options.processes == "auto" else self.options.processes
        if processes == 1 or pending < FEW_IMAGES:
            return nullcontext(scoring_here(scorers, images))
        return scoring_processes([one.request for one in self.scorers], images, processes)


def open_scorers(options: ScoreOptions, workspace: Workspace, cache: ResultCache) -> list[ScorerGroup]:
    """Return the scorers that are asked for, in groups.

    Raises:
        UserError: for a function or a model that cannot be found or used, and for two scorers of one name.
    """
    opened: dict[str, OpenScorer] = {}
    for request in options.requests:
        scorer = _open(request, options, cache)
        if scorer.name in opened:
            raise ConfigError([f"score: two scorers are called {scorer.name}; ask for one of them at a time"])
        table = ScoreTable(workspace.scores, scorer.name, scorer.version, reads_prompt=scorer.reads_prompt)
        opened[scorer.name] = OpenScorer(request, scorer, table)
    return list(_grouped(list(opened.values()), options))


def _grouped(scorers: Sequence[OpenScorer], options: ScoreOptions) -> Iterator[ScorerGroup]:
    together = [one for one in scorers if not needs_model(one.request)]
    if together:
        yield ScorerGroup(together, options)
    yield from (ScorerGroup([one], options) for one in scorers if needs_model(one.request))


def _open(request: ScorerRequest, options: ScoreOptions, cache: ResultCache) -> Scorer:
    if not needs_model(request):
        return make_scorer(request)
    if request.kind == PYIQA:
        from t2i_core.engine.iqa_scores import IqaScorer

        return IqaScorer(request.argument, options.device)
    from t2i_core.engine.clip_scores import ClipScorer

    model = _resolve(request.argument, options.cache_dir, cache)
    folder = _fetch(model, options.cache_dir, cache)
    return ClipScorer(folder, model.kind, model.identity, options.device)


def _resolve(name: str, cache_dir: str | None, cache: ResultCache) -> ScorerModel:
    """Return a model by its files. A folder is hashed once; the hub is asked each time, for a branch moves."""
    files = scorer_model_fingerprint(name)
    call = cache.call_afresh if files is None else cache.call
    key = cache_key(name, cache_dir, files)
    return ScorerModel.from_json(call(resolve_scorer_model_task, key, name, cache_dir))


def _fetch(model: ScorerModel, cache_dir: str | None, cache: ResultCache) -> Path:
    def still_there(folder: str) -> bool:
        files = ((Path(folder) / file.path, file.size) for file in model.files)
        return all(path.is_file() and path.stat().st_size == size for path, size in files)

    values = model.to_json()
    key = cache_key(values, cache_dir)
    return Path(cache.call(fetch_scorer_model_task, key, values, cache_dir, is_valid=still_there))
