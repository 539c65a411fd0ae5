"""Metrics of pyiqa, with a package of that name in its place: it is not installed with the tests."""

import sys
import types

import numpy as np
import pytest

from t2i_core.engine import iqa_scores
from t2i_core.engine.iqa_scores import IqaScorer
from t2i_core.errors import ConfigError, ModelError
from t2i_core.scoring.interface import ScoredImage

IMAGES = [ScoredImage(np.full((2 + n, 4, 3), 51 * n, np.uint8), "") for n in (1, 2)]


@pytest.fixture
def pyiqa(monkeypatch):
    """A package whose metric is the mean of the pixels."""

    class Mean:
        def __init__(self, mode):
            self.metric_mode = mode

        def __call__(self, pixels):
            assert pixels.ndim == 4 and pixels.shape[1] == 3
            return pixels.mean(dim=(1, 2, 3), keepdim=False)

    module = types.ModuleType("pyiqa")
    module.list_models = lambda: ["niqe", "psnr", "clipiqa+"]
    module.create_metric = lambda name, device: Mean("FR" if name == "psnr" else "NR")
    module.__spec__ = types.SimpleNamespace(name="pyiqa")
    monkeypatch.setitem(sys.modules, "pyiqa", module)
    monkeypatch.setattr(iqa_scores, "version", lambda package: "0.1.16")


def test_a_metric_gets_pixels_from_0_to_1_and_gives_a_column_of_its_name(pyiqa):
    assert IqaScorer("niqe", "cpu").score(IMAGES) == {"score_pyiqa_niqe": [0.2, 0.4]}
    assert list(IqaScorer("clipiqa+", "cpu").score(IMAGES)) == ["score_pyiqa_clipiqa_plus"]
    assert IqaScorer("niqe", "cpu").version != IqaScorer("clipiqa+", "cpu").version


def test_a_metric_that_is_unknown_or_needs_a_reference_is_refused(pyiqa):
    with pytest.raises(ConfigError, match=r"pyiqa has no metric nique; did you mean niqe\?"):
        IqaScorer("nique", "cpu").score(IMAGES)
    with pytest.raises(ConfigError, match="pyiqa:psnr compares with a reference image"):
        IqaScorer("psnr", "cpu").score(IMAGES)


def test_without_the_package_the_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pyiqa:niqe needs the pyiqa package; pip install 'text2image\[pyiqa\]'"):
        IqaScorer("niqe", "cpu")
