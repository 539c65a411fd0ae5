"""What the last run left in an output, as the commands that read one find it."""

import json

import pytest

from t2i_core.errors import OutputError
from t2i_core.output.finished import read_finished
from t2i_core.output.layout import PROVENANCE, RUN
from t2i_core.output.manifest import write_manifest
from t2i_core.planning.plan import Plan
from t2i_core.storage.workspace import Workspace
from tests.builders import SKIPPED, image_spec, make_catalog, store_image, write_plan_files


@pytest.fixture
def finished(workspace, config):
    """An output with one image there and one failed, whose run wrote all its files."""
    there, failed = image_spec(0), image_spec(1)
    store_image(workspace, there)
    catalog = make_catalog(workspace, there, SKIPPED, failed, errors={failed.key: "out of memory"})
    write_manifest(catalog, config())
    summary = {"run": "r1", "state": "finished", "data_set": catalog.plan.to_summary(), "configuration": {}}
    (workspace.root / RUN).write_text(json.dumps(summary))
    return workspace


def test_a_finished_output_is_read_as_its_run_left_it(finished):
    found = read_finished(finished)
    assert found.plan == Plan("plan", rows=3, usable=2, skipped=1, rejected=0, prompts=2, images=2)
    assert (found.run, found.interrupted, found.layout.named) == ("r1", False, True)
    assert found.errors() == {image_spec(1).key: "out of memory"}


@pytest.mark.parametrize(
    "name", [RUN, PROVENANCE, ".t2i/plans/plan-000.rows.parquet", ".t2i/plans/plan-000.specs.parquet"]
)
def test_a_missing_file_is_named_with_what_to_do(finished, name):
    (finished.root / name).unlink()
    with pytest.raises(OutputError, match=rf"has no {name}, which a run of text2image leaves; run text2image"):
        read_finished(finished)


def test_files_that_cannot_be_read_or_are_of_different_runs_are_refused(finished, tmp_path):
    for text in ("{", "[]", "{}"):
        (finished.root / RUN).write_text(text)
        with pytest.raises(OutputError, match="cannot be read"):
            read_finished(finished)
    other = write_plan_files(finished, image_spec(0), digest="other")
    (finished.root / RUN).write_text(json.dumps({"data_set": other.to_summary(), "configuration": {}}))
    with pytest.raises(OutputError, match="are of different runs"):
        read_finished(finished)
    with pytest.raises(OutputError, match="is no folder"):
        read_finished(Workspace(tmp_path / "nowhere"))
