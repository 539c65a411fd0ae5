"""Metrics of image quality from the package pyiqa, which is not installed by default."""

import difflib
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch

from t2i_core.engine.device import resolve_device
from t2i_core.errors import ConfigError
from t2i_core.hashing import digest
from t2i_core.models.packages import check_installed

VERSION = 1


class IqaScorer:
    """A metric of pyiqa that looks at the image alone. The package downloads the weights of a metric by itself.

    The version of the package and the name of the metric stand for its weights, which are not hashed.
    """

    reads_prompt = False

    def __init__(self, metric: str, device: str) -> None:
        """Name the metric; it is loaded with the first images.

        Raises:
            ModelError: where the package is not installed.
            ConfigError: for a device that is not there.
        """
        check_installed("pyiqa", f"score: pyiqa:{metric}")
        self.name = "pyiqa_" + metric.replace("-", "_").replace("+", "_plus").replace(".", "_")
        self.version = digest(["pyiqa", VERSION, version("pyiqa"), metric])
        self._metric_name, self._device = metric, resolve_device(device)
        self._metric: Any = None

    def score(self, images: Sequence[Any]) -> dict[str, list[float]]:
        """Return the metric of images of the shape of `ScoredImage`."""
        metric = self._loaded()
        scores = []
        for image in images:  # one by one: sizes may differ
            pixels = torch.from_numpy(image.pixels.copy()).permute(2, 0, 1)[None] / 255
            with torch.inference_mode():
                scores.append(round(float(metric(pixels.to(self._device))), 6))
        return {f"score_{self.name}": scores}

    def _loaded(self) -> Any:
        if self._metric is None:
            import pyiqa

            known = pyiqa.list_models()
            if self._metric_name not in known:
                close = difflib.get_close_matches(self._metric_name, known, n=1)
                fix = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(known))}"
                raise ConfigError([f"score: pyiqa has no metric {self._metric_name}; {fix}"])
            metric = pyiqa.create_metric(self._metric_name, device=torch.device(self._device))
            if metric.metric_mode != "NR":
                raise ConfigError(
                    [f"score: pyiqa:{self._metric_name} compares with a reference image; choose a metric without one"]
                )
            self._metric = metric
        return self._metric
