"""What the last run left in an output: the common ground of the commands that read one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i_core.errors import OutputError
from t2i_core.json_values import checked
from t2i_core.output.identity import manifest_form
from t2i_core.output.layout import PROVENANCE, RUN, Layout, has_names
from t2i_core.planning.plan import Plan
from t2i_core.storage.files import read_regular
from t2i_core.storage.tables import open_table, read_chunks
from t2i_core.storage.workspace import Workspace

AGAIN = "run text2image with this output once more (it makes no image again), or name another folder"


@dataclass(frozen=True, slots=True)
class FinishedOutput:
    """An output folder after a run: its plan, the form of its manifest, and what `run.json` says.

    `summary` is `run.json`. `interrupted`: the run was stopped, so that images may be missing.
    """

    workspace: Workspace
    plan: Plan
    layout: Layout
    summary: Mapping[str, Any]

    @property
    def run(self) -> str:
        """The ID of the run."""
        return str(self.summary["run"])

    @property
    def interrupted(self) -> bool:
        """Whether the run was stopped before it came to its end."""
        return bool(self.summary["state"] != "finished")

    @property
    def provenance(self) -> Path:
        """Where `images.parquet` is: a row for each image, in the order of the plan."""
        return self.workspace.root / PROVENANCE

    def errors(self) -> dict[str, str]:
        """Return key -> why the image could not be made.

        Raises:
            OutputError: for an images.parquet that cannot be read.
        """
        errors: dict[str, str] = {}
        try:
            for chunk in read_chunks(self.provenance, ["key", "error"]):
                failed = chunk.filter(chunk["error"].is_valid())
                errors.update(zip(failed["key"].to_pylist(), failed["error"].to_pylist(), strict=True))
        except (ValueError, LookupError, OSError) as error:  # those of Arrow among them
            raise OutputError(f"output: {self.provenance} cannot be read ({_one_line(error)}); {AGAIN}") from None
        return errors


def read_finished(workspace: Workspace) -> FinishedOutput:
    """Return what the last run left in an output.

    Raises:
        OutputError: where no run came to write its files, or where they do not belong together.
    """
    root = workspace.root
    if not root.is_dir():
        raise OutputError(f"output: {root} is no folder; name the output of a text2image run")
    _refuse_missing(root, root / RUN, root / PROVENANCE)
    try:
        summary = json.loads(read_regular(root / RUN))
        plan = checked(Plan.from_summary(summary["data_set"]))
        if not all(isinstance(summary.get(name, ""), str) for name in ("run", "state")):
            raise ValueError("the ID or the state of the run is no text")
        _refuse_missing(root, *plan.files(workspace.plans))
        with open_table(root / PROVENANCE) as provenance:
            images = provenance.metadata.num_rows
        form = manifest_form(workspace)
        asked = summary["configuration"]
        named = has_names(asked.get("named_images", "auto"), asked.get("embed_metadata", "all"), plan.images)
        layout = Layout(form, named) if form else None
    except OutputError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise OutputError(
            f"output: the files of the last run in {root} cannot be read ({_one_line(error)}); {AGAIN}"
        ) from None
    if layout is None or images != plan.images:
        raise OutputError(f"output: the files in {root} are of different runs; {AGAIN}")
    return FinishedOutput(workspace, plan, layout, summary)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _refuse_missing(root: Path, *files: Path) -> None:
    for file in files:
        if not file.is_file():
            name = file.relative_to(root)
            raise OutputError(f"output: {root} has no {name}, which a run of text2image leaves; {AGAIN}")
