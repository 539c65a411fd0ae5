"""What an output is for, where `.t2i/output.json` was deleted: as run.json, the manifest and headers of images tell.

The images are all that cannot be written again. A run adopts them, keeps to the commit of the model that made them, and
knows the manifest that lies there: it has to go before names change their meaning.
"""

from collections import Counter
from itertools import islice
from typing import Any

from t2i_core.config import Config
from t2i_core.models.request import model_request
from t2i_core.output.layout import RUN
from t2i_core.output.recognition import form_of, has_images_of_ours, headers, read_run
from t2i_core.storage.workspace import Workspace

# So many images are asked which commit made them.
_HEADERS = 1000


def recover(workspace: Workspace, config: Config) -> dict[str, Any] | None:
    """Return what output.json would hold, as far as it can be told; None for a folder without images of ours.

    `dataset` and `fingerprint` are None without a run.json, which alone knows the data set.
    """
    if not has_images_of_ours(workspace):
        return None
    run = read_run(workspace.root / RUN) or {}
    known = run.get("output")
    if not isinstance(known, dict):
        known = _of_an_earlier_version(run)
    return {
        "dataset": known.get("dataset"),
        "fingerprint": known.get("fingerprint"),
        "commits": known.get("commits") or _commits(workspace, config),
        "manifest": _manifest(workspace, known.get("manifest") or {}, config),
    }


def _of_an_earlier_version(run: dict[str, Any]) -> dict[str, Any]:
    """Return what a run.json says that does not hold a copy of output.json; nothing where there is none."""
    if not run:
        return {}
    configuration = run["configuration"]
    return {
        "dataset": configuration.get("dataset"),
        "fingerprint": "",
        "manifest": {"name": configuration.get("manifest_name", "manifest.jsonl")},
    }


def _manifest(workspace: Workspace, known: dict[str, Any], config: Config) -> dict[str, str] | None:
    """Return the form of the manifest that lies in the folder: the file itself tells best."""
    for name in (known.get("name"), config.manifest_name):
        if isinstance(name, str) and (form := form_of(workspace.root / name)) is not None:
            return {"name": form.name, "prefix": form.prefix, "image_key": form.image_key}
    return known if known.keys() == {"name", "prefix", "image_key"} else None


def _commits(workspace: Workspace, config: Config) -> dict[str, str]:
    """Return the commit of the model by which most of its images were made, as their headers say."""
    commits: Counter[str] = Counter()
    for header in islice(headers(workspace), _HEADERS):
        named = str(header.get("model_name", "")).partition(",")[0]
        if named == config.model and isinstance(header.get("commit"), str):
            commits[header["commit"]] += 1
    return {model_request(config).pipeline: commits.most_common(1)[0][0]} if commits else {}
