"""`images.parquet`: its columns are those of specs and records, and a row tells of the picture that is shown."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t2i_core.output.layout import Layout
from t2i_core.output.own_files import OwnFiles
from t2i_core.output.provenance import SCHEMA
from t2i_core.planning.plan import SPECS
from t2i_core.spec import ARGUMENTS
from t2i_core.storage.records import FACTS, RECORD_TABLE
from tests.builders import failed_record, image_spec, make_catalog, store_image, write_provenance

# What programs of users read: a column may be added, and none renamed or dropped.
FIRST_VERSION = {
    "row", "condition", "image", "key", "source_prompt", "prompt", "seed", "height", "width", "steps", "guidance_scale",
    "true_cfg_scale", "max_sequence_length", "negative_prompt", "scheduler", "model", "dtype", "adapters",
    "quantization", "prepare", "path", "status", "error", "run", "created", "pixels_sha256", "file_size", "batch_size",
    "vae_tiling", "prompt_lengths", "seconds", "device", "versions", "tuning", "model_name", "commit", "replaces",
}  # fmt: skip


@pytest.fixture
def written(workspace, config):
    """Write the provenance of a catalog; return its rows."""

    def write(catalog, **values):
        write_provenance(catalog, Layout.of(config(**values), catalog.plan.images), OwnFiles(workspace))
        return pq.read_table(workspace.root / "images.parquet").to_pylist()

    return write


def test_every_column_of_the_first_version_is_there():
    assert set(SCHEMA.names) >= FIRST_VERSION


def test_the_columns_derive_from_specs_and_records():
    asked = {name for name in SPECS.names if name not in ("name", "pixels_version")}
    known = {name for name, fact in FACTS.items() if fact.provenance}
    assert set(SCHEMA.names) == asked | known | {"path", "status", "error"}
    assert len(SCHEMA.names) == len(set(SCHEMA.names))
    for name in set(ARGUMENTS) - {"pixels_version"}:
        assert SCHEMA.field(name).type == ARGUMENTS[name].column
    for name in known:
        assert SCHEMA.field(name).type == RECORD_TABLE.field(name).type


def test_a_row_tells_what_was_asked_for_and_what_is_known(workspace, written):
    spec = image_spec(5, guidance_scale=3.5, negative_prompt="blurry", adapters=(("a" * 64, 0.5),))
    record = store_image(workspace, spec, batch_size=4, seconds=0.5, tuning={"offload": "group"}, commit="c" * 40)
    (row,) = written(make_catalog(workspace, spec, run="r1"))
    asked = {"row": 0, "condition": 0, "image": 0, "key": spec.key, "prompt": "p5", "seed": 5, "height": 8, "steps": 4}
    asked |= {"guidance_scale": 3.5, "negative_prompt": "blurry", "model": "m", "dtype": "float32"}
    known = {"run": "r1", "file_size": record.file_size, "pixels_sha256": record.pixels_sha256, "batch_size": 4}
    known |= {"seconds": 0.5, "device": "cpu", "model_name": "demo", "commit": "c" * 40, "replaces": None}
    assert row.items() >= (asked | known | {"status": "generated", "error": None}).items()
    assert json.loads(row["adapters"]) == [["a" * 64, 0.5]]
    assert json.loads(row["versions"]) == {"torch": "2"}
    assert json.loads(row["tuning"]) == {"offload": "group"}
    assert row["path"] == f"{workspace.root}/sample0_condition0/sample0_condition0_0.png"


def test_without_names_the_path_is_the_one_by_key(workspace, written):
    record = store_image(workspace, image_spec(5))
    (row,) = written(make_catalog(workspace, image_spec(5)), named_images="never")
    assert row["path"] == f"{workspace.root}/{workspace.images.location(record.key)}"


def test_a_replaced_image_shows_key_and_seed_of_its_replacement(workspace, written):
    failed = image_spec(0, seed=10)
    replacement = replace(failed, seed=77)
    store_image(workspace, replacement, replaces=failed.key)
    (row,) = written(make_catalog(workspace, failed, records=[failed_record(failed)], run="r1"))
    assert (row["key"], row["seed"], row["replaces"]) == (replacement.key, 77, failed.key)
    assert (row["status"], row["error"]) == ("generated", None)
    assert row["prompt"] == "p0"


def test_an_image_without_a_picture_has_its_own_key_no_path_and_the_reason(workspace, written):
    specs = [image_spec(i) for i in range(3)]
    catalog = make_catalog(
        workspace, *specs, records=[failed_record(specs[0], "it is black")], errors={specs[1].key: "busy"}
    )
    rows = written(replace(catalog, interrupted=True))
    assert [(row["status"], row["error"]) for row in rows] == [
        ("failed", "it is black"),
        ("failed", "busy"),
        ("pending", None),
    ]
    for row, spec in zip(rows, specs, strict=True):
        assert (row["key"], row["seed"]) == (spec.key, spec.seed)
        assert [row[name] for name in ("path", "run", "file_size", "pixels_sha256", "versions")] == [None] * 5


def test_an_image_of_an_earlier_run_is_reused(workspace, written):
    store_image(workspace, image_spec(0), run="earlier")
    (row,) = written(make_catalog(workspace, image_spec(0), run="now"))
    assert (row["status"], row["run"]) == ("reused", "earlier")


def test_a_data_set_without_images_has_the_columns_all_the_same(workspace, written):
    assert written(make_catalog(workspace)) == []
    assert pq.read_schema(workspace.root / "images.parquet") == pa.schema(list(SCHEMA))
