"""The scorers that need no model on a device: built in, or the user's own function."""

from t2i_core.models.packages import check_installed
from t2i_core.models.scorer_model import find_scorer_model
from t2i_core.options.score import CLIP, FUNCTION, PYIQA, ScoreOptions, ScorerRequest
from t2i_core.output.finished import read_finished
from t2i_core.scoring.interface import Scorer
from t2i_core.scoring.perceptual_hash import PerceptualHash
from t2i_core.scoring.statistics import Statistics
from t2i_core.scoring.user_function import UserFunction
from t2i_core.storage.workspace import Workspace


def needs_model(request: ScorerRequest) -> bool:
    """Return whether a scorer needs a model, which the engine loads."""
    return request.kind not in ("stats", "phash", FUNCTION)


def check_options(options: ScoreOptions) -> None:
    """Refuse what small files show to be a mistake, before a server is started or a model is fetched.

    Raises:
        UserError: for an output that no run finished, and a scorer that cannot be found or used.
    """
    read_finished(Workspace(options.output))
    for request in options.requests:
        if request.kind == CLIP:
            find_scorer_model(request.argument)
        elif request.kind == PYIQA:
            check_installed("pyiqa", f"score: pyiqa:{request.argument}")
        else:
            make_scorer(request)


def make_scorer(request: ScorerRequest) -> Scorer:
    """Return a scorer that needs no model.

    Raises:
        ConfigError: for a function that cannot be found.
    """
    if request.kind == "stats":
        return Statistics()
    if request.kind == "phash":
        return PerceptualHash()
    assert request.kind == FUNCTION
    return UserFunction(request.argument)
