"""Where scorers work: in this process, or those that need no model in as many processes as there are cores."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain

from t2i_core.errors import ConfigError
from t2i_core.options.score import ScorerRequest
from t2i_core.scoring.built_in import make_scorer
from t2i_core.scoring.interface import Scorer
from t2i_core.scoring.pending import ScoreItem
from t2i_core.scoring.work import Results, decode, score_decoded
from t2i_core.storage.image_store import ImageStore

# Images that a process decodes at a time: of 1024x1024 pixels 50 MB.
BATCH = 16

# Scores items with some of the scorers, by their indices, and yields for each batch the results of each of them.
Score = Callable[[tuple[int, ...], Sequence[ScoreItem]], Iterator[list[Results]]]


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def scoring_here(scorers: Sequence[Scorer], images: ImageStore, batch: int = BATCH) -> Score:
    """Return scoring in this process; the next batch is decoded while one is scored."""

    def score(chosen: tuple[int, ...], items: Sequence[ScoreItem]) -> Iterator[list[Results]]:
        batches = _batches(items, batch)
        with ThreadPoolExecutor(1) as decoder:
            ahead = decoder.submit(decode, images, next(batches))
            for following in chain(batches, [None]):
                decoded = ahead.result()
                if following is not None:
                    ahead = decoder.submit(decode, images, following)
                yield score_decoded([scorers[number] for number in chosen], decoded)

    return score


@contextmanager
def scoring_processes(requests: Sequence[ScorerRequest], images: ImageStore, processes: int) -> Iterator[Score]:
    """Provide scoring in several processes for the block, for scorers that need no model.

    Raises:
        ConfigError: where the system ends one of the processes.
    """
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that Prefect's threads hold
    with ProcessPoolExecutor(processes, context, _begin, (list(requests), images.absolute())) as pool:

        def score(chosen: tuple[int, ...], items: Sequence[ScoreItem]) -> Iterator[list[Results]]:
            batches = list(_batches(items, BATCH))
            try:
                yield from pool.map(_score, [chosen] * len(batches), batches)
            except BrokenProcessPool:
                raise ConfigError(
                    [f"processes: the system ended one of {processes} processes, perhaps for its memory; write fewer"]
                ) from None

        try:
            yield score
        finally:
            pool.shutdown(cancel_futures=True)


def _batches(items: Sequence[ScoreItem], size: int) -> Iterator[Sequence[ScoreItem]]:
    return (items[start : start + size] for start in range(0, len(items), size))


class _Worker:
    """What a process of the pool keeps."""

    scorers: Sequence[Scorer]
    images: ImageStore


def _begin(requests: Sequence[ScorerRequest], images: ImageStore) -> None:
    """Prepare a process of the pool. It leaves an interrupt to its parent, and ends when its parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    _Worker.scorers, _Worker.images = [make_scorer(request) for request in requests], images


def _end_with(sentinel: int) -> None:
    from multiprocessing.connection import wait

    wait([sentinel])
    os._exit(1)


def _score(chosen: tuple[int, ...], items: Sequence[ScoreItem]) -> list[Results]:
    return score_decoded([_Worker.scorers[number] for number in chosen], decode(_Worker.images, items))
