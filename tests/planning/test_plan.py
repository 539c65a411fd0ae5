"""A plan is two files, whose columns are those of a row and of an image spec."""

from dataclasses import fields

import pyarrow as pa
import pytest

from t2i_core.planning.plan import SPECS, Plan, segment_rows
from t2i_core.spec import ImageSpec

PLAN = Plan("d1", rows=1, usable=1, skipped=0, rejected=0, prompts=1, images=1, segments=2)
# The columns that `images.parquet` has had since the first release, with their types.
COLUMNS = {
    "row": pa.int64(),
    "condition": pa.int32(),
    "image": pa.int32(),
    "name": pa.string(),
    "key": pa.string(),
    "prompt": pa.string(),
    "source_prompt": pa.string(),
    "negative_prompt": pa.string(),
    "seed": pa.int64(),
    "height": pa.int32(),
    "width": pa.int32(),
    "steps": pa.int32(),
    "guidance_scale": pa.float64(),
    "true_cfg_scale": pa.float64(),
    "max_sequence_length": pa.int32(),
    "scheduler": pa.string(),
    "scheduler_options": pa.string(),
    "model": pa.string(),
    "dtype": pa.string(),
    "adapters": pa.string(),
    "quantization": pa.string(),
    "prepare": pa.string(),
}


def test_every_field_of_a_spec_is_a_column():
    assert {item.name for item in fields(ImageSpec)} <= set(SPECS.names)


def test_columns_keep_name_and_type():
    assert {name: SPECS.field(name).type for name in COLUMNS} == COLUMNS
    assert len(set(SPECS.names)) == len(SPECS.names)


@pytest.mark.parametrize("missing", ["d1-000.rows.parquet", "d1-001.specs.parquet", None])
def test_a_plan_exists_with_all_its_files(tmp_path, missing):
    for path in PLAN.files(tmp_path):
        if path.name != missing:
            path.touch()
    assert PLAN.exists(tmp_path) == (missing is None)


def test_plans_share_a_folder(tmp_path):
    assert [path.name for path in PLAN.rows_files(tmp_path)] == ["d1-000.rows.parquet", "d1-001.rows.parquet"]
    assert [path.name for path in PLAN.specs_files(tmp_path)] == ["d1-000.specs.parquet", "d1-001.specs.parquet"]
    assert {path.parent for path in PLAN.files(tmp_path)} == {tmp_path}


def test_segments_grow_so_that_the_first_is_there_early():
    rows = [segment_rows(number) for number in range(40)]
    assert rows[:6] == [4096, 8192, 16_384, 32_768, 65_536, 65_536]
    assert max(rows) == 65_536
