"""A finished output without a flow, and exports of it."""

import json

import pytest

from t2i_core.config import Config
from t2i_core.export.export import export, target_folder
from t2i_core.options.export import ExportOptions
from t2i_core.output.finished import read_finished
from t2i_core.output.identity import OutputIdentity, claim_output
from t2i_core.output.layout import RUN
from t2i_core.output.manifest import write_manifest
from t2i_core.output.selection import choose
from t2i_core.planning.plan import ROWS
from t2i_core.storage.files import atomic_write
from t2i_core.storage.tables import read_rows, write_rows
from t2i_core.storage.workspace import Workspace
from tests.builders import image_spec, make_catalog, store_image

MODEL = {"name": "demo", "pipeline": "FluxPipeline", "commit": None, "identity": "m", "licence": "Apache-2.0"}


class Output:
    """A finished output that tests change row by row, and export."""

    def __init__(self, folder):
        self.workspace = Workspace(folder)
        self.root = self.workspace.root
        claim_output(self.workspace, OutputIdentity("prompts.jsonl", "0" * 64))

    def make(self, *rows, without=(), **values):
        """Write what a run leaves: a row is a dict, made of its columns and of `specs`, the images that it asks for.

        `without`: specs whose images failed.
        """
        specs = [row.get("specs") or [image_spec(number)] for number, row in enumerate(rows)]
        for spec in {spec.key: spec for own in specs for spec in own}.values():
            if spec not in without and self.workspace.images.stat(spec.key) is None:
                store_image(self.workspace, spec)
        self.catalog = make_catalog(self.workspace, *specs, errors={spec.key: "out of memory" for spec in without})
        texts = [{name: value for name, value in row.items() if name != "specs"} for row in rows]
        (file,) = self.catalog.plan.rows_files(self.workspace.plans)
        stored = [row | {"json": json.dumps(texts[row["row"]])} for row in read_rows(file)]
        with atomic_write(file) as target:
            write_rows(target, ROWS, stored)
        settings = {"dataset": "prompts.jsonl", "model": "demo", "output": str(self.root)}
        write_manifest(self.catalog, Config.from_values(settings))
        summary = {
            "run": "r1", "state": "finished", "model": MODEL, "configuration": {"lora": ["style.safetensors:0.8"]},
            "data_set": {"name": "data/prompts.jsonl", **self.catalog.plan.to_summary()},
        }  # fmt: skip
        (self.root / RUN).write_text(json.dumps(summary))
        return self

    def export(self, form, **options):
        """Export; return the folder."""
        asked = ExportOptions.from_values({"output": str(self.root), "format": form} | options)
        finished = read_finished(self.workspace)
        self.summary = export(self.catalog, finished, asked, choose(finished, asked))
        return target_folder(asked)


@pytest.fixture
def output(tmp_path):
    return Output(tmp_path / "out")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Let `datasets` keep what it prepares in the folder of the test."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
