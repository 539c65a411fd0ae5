"""Whatever lies in an output folder: one line says what is wrong, or it does not count. Nothing outside is touched."""

import io
import json
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from t2i_core.config import Config
from t2i_core.errors import DamagedImage, OutputError
from t2i_core.output.accounting import Accounting
from t2i_core.output.finished import read_finished
from t2i_core.output.identity import OutputIdentity, open_output, stored_identity
from t2i_core.output.layout import ManifestForm
from t2i_core.output.part_marks import PartMark, PartMarks, PartState
from t2i_core.planning.parts import Part
from t2i_core.planning.plan import Plan
from t2i_core.storage import png
from t2i_core.storage.adoption import adopt
from t2i_core.storage.formats import read_header, read_image
from t2i_core.storage.picture_texts import PictureTexts
from t2i_core.storage.records import RECORD_TABLE, record_batches
from t2i_core.storage.run_marks import RunMarks
from t2i_core.storage.workspace import Workspace
from tasks.caching import ResultCache, read_by
from tasks.manifest import accounting_of
from tasks.records import collect_records
from tests.builders import image_record, image_spec, picture, store_image
from tests.fuzz.shapes import JSON, changed, damaged

KEPT = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
IDENTITY = asdict(OutputIdentity("a.jsonl", "0" * 64, {"demo": "1" * 40}, ManifestForm("m.jsonl", "out/", "images")))
RECORD = asdict(image_record(image_spec(1), pixels_sha256="0" * 64, versions={"torch": "2"}))
PLAN = {
    "digest": "0" * 64,
    "rows": 1,
    "usable": 1,
    "skipped": 0,
    "rejected": 0,
    "prompts": 1,
    "images": 1,
    "segments": 1,
}


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path / "out")
    workspace.images.root.joinpath(".t2i/images").mkdir(parents=True)
    return workspace


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("png"))
    return workspace.images.read(store_image(workspace, image_spec(1)).key)


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


@KEPT
@given(changed(IDENTITY) | damaged(json.dumps(IDENTITY).encode()))
def test_output_json_of_any_shape(workspace, values):
    put(workspace.hidden / "output.json", values)
    config = Config.from_values({"dataset": "a.jsonl", "model": "demo", "output": str(workspace.root)})
    try:
        open_output(workspace, config, "0" * 64)
        identity = stored_identity(workspace)
    except OutputError as error:
        assert "\n" not in str(error)
    else:
        form = identity and identity["manifest"]
        assert not form or (workspace.root / form["name"]).parent == workspace.root


RUN = {
    "state": "finished",
    "run": "r",
    "configuration": {"named_images": "auto", "embed_metadata": "all", "manifest_name": "manifest.jsonl"},
    "accounting": {},
    "data_set": Plan(**PLAN).to_summary(),
    "output": IDENTITY,
}


@KEPT
@given(changed(RUN) | damaged(json.dumps(RUN).encode()))
def test_run_json_of_any_shape(workspace, values):
    put(workspace.root / "run.json", values)
    (workspace.root / "images.parquet").write_bytes(b"PAR1")
    with pytest.raises(OutputError) as raised:
        read_finished(workspace)
    assert "\n" not in str(raised.value)


@KEPT
@given(changed(PLAN), changed({"accounting": asdict(Accounting())}))
def test_stored_results_of_another_form_do_not_count(plan, accounting):
    for read, values in ((lambda stored: Plan(**stored), plan), (accounting_of, accounting)):
        try:
            assert read_by(read)(values)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
            continue  # `ResultCache.holds` takes it for missing
        found = read(values)
        if isinstance(found, Plan):
            assert next(found.rows_files(Path("plans")), Path("plans/none")).parent == Path("plans")


@KEPT
@given(changed({"records": [RECORD]}) | damaged(json.dumps({"records": [RECORD]}).encode()))
def test_results_of_shards_of_any_shape(workspace, values):
    text = values.decode(errors="replace") if isinstance(values, bytes) else json.dumps(values)
    stored = {"metadata": {"serializer": {"type": "json"}}, "result": text}
    put(workspace.results / "shard-v2" / ("0" * 64), stored)
    for path in workspace.records.glob("*"):
        path.unlink()
    name = collect_records("0" * 64, str(workspace.root), workspace.images.scan())
    assert (workspace.records / name).is_file()


@KEPT
@given(changed({"metadata": {"serializer": {"type": "json"}}, "result": "{}"}) | st.binary(max_size=50))
def test_files_in_place_of_results(workspace, values):
    put(workspace.results / "x-v1" / "k", values)
    ResultCache(workspace.results, retries=0).read("x-v1/k")


@KEPT
@given(st.lists(changed(RECORD) | JSON, max_size=4))
def test_records_of_any_shape(records):
    table = pa.Table.from_batches(record_batches(records), RECORD_TABLE)
    assert len(table) <= len(records)


MARK = asdict(PartMark(PartState.RUNNING, "host", "r", "2026-01-01"))


@KEPT
@given(changed(MARK) | damaged(json.dumps(MARK).encode()), JSON)
def test_marks_of_any_shape(workspace, mark, told):
    put(workspace.hidden / "parts/1-of-2.json", mark)
    assert set(PartMarks(workspace).latest()) <= {Part(1, 2)}
    put(workspace.running / "r/p.json", told)
    RunMarks(workspace.running, "r").told()


@settings(KEPT, max_examples=30)
@given(st.data())
def test_images_of_any_bytes(stored, data):
    content = data.draw(damaged(stored))
    header = read_header(io.BytesIO(content))
    assert header is None or isinstance(header, dict)
    try:
        image = read_image(content)
    except DamagedImage as error:
        assert "\n" not in str(error)
    else:
        assert image.pixels_sha256 == read_image(stored).pixels_sha256


@KEPT
@given(changed(RECORD) | st.dictionaries(st.text(max_size=6), JSON, max_size=3))
def test_headers_of_any_shape_are_adopted_or_not(workspace, header):
    spec = image_spec(1)
    record = store_image(workspace, spec)
    own = {"key": record.key, "pixels_sha256": record.pixels_sha256}  # so that the image counts as whole
    texts = PictureTexts.of(record.header(), None)
    text = json.dumps((header if isinstance(header, dict) else {}) | own)
    data = png.with_texts(png.encode(Image.fromarray(picture(spec)), 1), replace(texts, record=text))
    workspace.images.write(record.key, data)
    assert len(adopt([record.key], workspace.images)) <= 1
