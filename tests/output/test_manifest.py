"""Writing the manifest: under the lock, in an order in which no manifest ever names a wrong picture."""

import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import Timeout

from t2i_core.dataset.rows import Rejection
from t2i_core.json_values import json_text
from t2i_core.output import manifest as module
from t2i_core.output.identity import manifest_form
from t2i_core.output.layout import ManifestForm
from t2i_core.output.manifest import files_written, manifest_is_right, write_manifest
from t2i_core.output.named_links import NamedLinks
from t2i_core.output.own_files import OwnFiles
from t2i_core.planning.plan import ROWS
from t2i_core.storage.files import atomic_write
from t2i_core.storage.formats import read_header
from t2i_core.storage.image_store import ImageStore
from t2i_core.storage.tables import read_rows, write_rows
from t2i_core.storage.workspace import Workspace
from tests.builders import SKIPPED, failed_record, image_spec, make_catalog, store_image

SECONDS = 20
REJECTION = Rejection(1, 2, "conversations", "None", "is missing")


def name(row, image=0):
    return f"sample{row}_condition0/sample{row}_condition0_{image}.png"


def lines(workspace, file="manifest.jsonl"):
    return [json.loads(line) for line in (workspace.root / file).read_text("utf-8").splitlines()]


def paths(workspace, *names):
    return [f"{workspace.root}/{one}" for one in names]


def retired(workspace):
    return list(workspace.manifests.glob("*.jsonl"))


@pytest.fixture
def catalog(workspace):
    """The catalog of stored images: `catalog(3, 4)` has a row for image 3 and one for image 4."""

    def make(*numbers, **values):
        for number in numbers:
            if workspace.images.stat(image_spec(number).key) is None:
                store_image(workspace, image_spec(number))
        return make_catalog(workspace, *map(image_spec, numbers), **values)

    return make


@pytest.fixture
def set_rows(workspace):
    """Change columns of a plan's rows: `set_rows(catalog, {row: {"json": ...}})`."""

    def change(catalog, values):
        (file,) = catalog.plan.rows_files(workspace.plans)
        rows = [row | values.get(row["row"], {}) for row in read_rows(file)]
        with atomic_write(file) as target:
            write_rows(target, ROWS, rows)

    return change


def test_each_row_comes_as_it_was_with_the_paths_of_its_images(workspace, config):
    specs = [image_spec(i) for i in range(4)]
    for spec in specs[:3]:
        store_image(workspace, spec)
    made = make_catalog(workspace, specs[0], REJECTION, [specs[1], specs[2]], SKIPPED, specs[3])
    accounting = write_manifest(made, config())
    assert lines(workspace) == [
        {"row": 0, "images": paths(workspace, name(0))},
        {"row": 1, "images": []},
        {"row": 2, "images": paths(workspace, name(2, 0), name(2, 1))},
        {"row": 3},  # came with images: left as it is
        {"row": 4, "images": []},
    ]
    assert [(failure["row"], failure["field"]) for failure in lines(workspace, "failures.jsonl")] == [
        (1, "conversations"),
        (4, "prompt"),
    ]
    assert (accounting.rows, accounting.images, accounting.images_failed, accounting.rows_rejected) == (5, 4, 1, 1)
    assert pq.read_table(workspace.root / "images.parquet").num_rows == 4


def test_every_path_opens_and_is_the_image_of_its_row(workspace, catalog, config):
    write_manifest(catalog(3, 4, 5), config())
    for row, number in zip(lines(workspace), (3, 4, 5), strict=True):
        with Path(row["images"][0]).open("rb") as file:
            assert read_header(file)["key"] == image_spec(number).key


def test_the_text_of_a_row_is_kept(workspace, catalog, config, set_rows):
    made = catalog(0, 1)
    kept = {"z": "狐 <b>", "a": [1.5, None, True], "broken": "\ud800", "images": []}
    set_rows(made, {0: {"json": json.dumps(kept)}})
    write_manifest(made, config(image_key="pictures"))
    first, _ = (workspace.root / "manifest.jsonl").read_text("utf-8").splitlines()
    assert json.loads(first) == kept | {"pictures": paths(workspace, name(0))}
    assert list(json.loads(first)) == ["z", "a", "broken", "images", "pictures"]


def test_text_that_utf8_can_encode_is_readable(workspace, catalog, config, set_rows):
    made = catalog(0)
    set_rows(made, {0: {"json": '{"prompt": "狐"}'}})
    write_manifest(made, config())
    assert "狐" in (workspace.root / "manifest.jsonl").read_text("utf-8")


@pytest.mark.parametrize("prefix", ["out/", "狐/", ""])
@pytest.mark.parametrize("key", ["images", "狐", 'a"b'])
def test_the_line_of_a_row_is_its_json_with_the_paths_whatever_is_in_it(workspace, catalog, set_rows, prefix, key):
    rows = [
        {},
        {"a": [1.5, None, True], "b": "狐"},
        {"a": key, "b": {key: ["x"]}, "c": f'"{key}": ['},
        {key: []},
        {key: None, "z": 1},
        {"狐": "\ud800"},
        {f"{key}s": 1},
    ]
    made = catalog(*range(len(rows)))
    set_rows(made, {number: {"json": json_text(row)} for number, row in enumerate(rows)})
    (chunk,) = made.row_chunks()
    paths = [f"{prefix}{number}.png" for number in range(len(rows))]
    lines = module.manifest_lines(chunk, pa.array(paths), ManifestForm("manifest.jsonl", prefix, key))
    assert list(lines) == [json_text(row | {key: [path]}) for row, path in zip(rows, paths, strict=True)]


def test_a_line_that_is_no_object_is_not_in_the_manifest_but_in_the_failures(workspace, config, set_rows):
    store_image(workspace, image_spec(0))
    made = make_catalog(workspace, image_spec(0), REJECTION)
    set_rows(made, {1: {"json": None}})
    accounting = write_manifest(made, config())
    assert [row["row"] for row in lines(workspace)] == [0]
    assert [failure["row"] for failure in lines(workspace, "failures.jsonl")] == [1]
    assert accounting.rows == 2


def test_failures_are_readable_and_name_the_file_they_are_in(workspace, config):
    write_manifest(make_catalog(workspace, image_spec(0, prompt="狐")), config(dataset="狐.jsonl"))
    text = (workspace.root / "failures.jsonl").read_text("utf-8")
    assert json.loads(text)["file"] == "狐.jsonl"
    assert text.count("狐") == 2


def test_a_rejected_row_keeps_the_images_it_came_with(workspace, config, set_rows):
    made = make_catalog(workspace, REJECTION, REJECTION)
    set_rows(made, {0: {"json": '{"images": "mine.png"}'}, 1: {"json": '{"images": null}'}})
    write_manifest(made, config())
    assert lines(workspace) == [{"images": "mine.png"}, {"images": []}]


def test_without_names_the_manifest_gives_paths_by_key(workspace, catalog, config):
    write_manifest(catalog(3), config(named_images="never"))
    location = workspace.images.location(image_spec(3).key)
    assert lines(workspace) == [{"row": 0, "images": paths(workspace, location)}]
    assert list(workspace.root.glob("sample*")) == []


def test_the_lock_is_held_from_the_first_question_to_the_manifest(workspace, catalog, config, monkeypatch):
    held = {}

    def probe(stage):
        with pytest.raises(Timeout):
            Workspace(workspace.root).lock().acquire(timeout=0)
        held[stage] = True

    def probing(owner, attribute):
        original = getattr(owner, attribute)

        def call(*arguments, **values):
            probe(attribute)
            return original(*arguments, **values)

        monkeypatch.setattr(owner, attribute, call)

    write_manifest(catalog(0, 1), config())
    stages = [(NamedLinks, "changes"), (NamedLinks, "apply"), (ImageStore, "link"), (os, "replace")]
    stages += [(module, name) for name in ("retire_manifest", "note_manifest_form", "provenance_writer")]
    stages.append((OwnFiles, "write"))
    made = catalog(1, 2)
    for owner, attribute in stages:
        probing(owner, attribute)
    write_manifest(made, config())
    assert set(held) == {attribute for _, attribute in stages}
    with Workspace(workspace.root).lock().acquire(timeout=0):  # free again
        pass


def test_a_second_writer_waits_for_the_first(workspace, catalog, config, monkeypatch):
    made, asked = catalog(0), threading.Event()
    original = Workspace.lock

    def lock(self):
        asked.set()
        return original(self)

    monkeypatch.setattr(Workspace, "lock", lock)
    second = threading.Thread(target=write_manifest, args=(made, config()))
    with original(workspace):
        second.start()
        assert asked.wait(SECONDS)
        second.join(0.3)
        assert second.is_alive()
        assert list(workspace.root.glob("sample*")) == []
    second.join(SECONDS)
    assert lines(workspace) == [{"row": 0, "images": paths(workspace, name(0))}]


def test_the_manifest_is_the_last_file_to_appear(workspace, catalog, config, monkeypatch):
    made, appeared = catalog(0, 1), []
    original = os.replace

    def replace_file(source, target):
        appeared.append(Path(target).relative_to(workspace.root).as_posix())
        original(source, target)

    monkeypatch.setattr(os, "replace", replace_file)
    write_manifest(made, config())
    assert [name for name in appeared if name != ".t2i/lock-holder"] == [
        ".t2i/output.json",
        name(0),
        name(1),
        *(".t2i/written/images.parquet", "images.parquet"),
        *(".t2i/written/failures.jsonl", "failures.jsonl"),
        *(".t2i/written/manifest.jsonl", "manifest.jsonl"),
    ]


def test_while_names_change_their_meaning_there_is_neither_manifest_nor_provenance(
    workspace, catalog, config, monkeypatch
):
    write_manifest(catalog(0, 1), config())
    seen = []
    original = NamedLinks.apply

    def apply(self, changes):
        seen.append(sorted(path.name for path in workspace.root.iterdir() if path.is_file()))
        original(self, changes)

    monkeypatch.setattr(NamedLinks, "apply", apply)
    write_manifest(catalog(1, 0), config())
    assert seen == [["failures.jsonl"]]
    (earlier,) = retired(workspace)
    rows = [json.loads(line) for line in earlier.read_text().splitlines()]
    by_key = [workspace.images.location(image_spec(number).key) for number in (0, 1)]
    assert [row["images"] for row in rows] == [paths(workspace, location) for location in by_key]


def test_provenance_goes_before_the_manifest_that_it_belongs_to(workspace, catalog, config, monkeypatch):
    write_manifest(catalog(0, 1), config())

    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "retire_manifest", killed)
    made = catalog(1, 0)
    with pytest.raises(KeyboardInterrupt):
        write_manifest(made, config())
    assert not (workspace.root / "images.parquet").exists()
    assert [row["images"] for row in lines(workspace)] == [paths(workspace, name(0)), paths(workspace, name(1))]
    assert NamedLinks(workspace).key_of(name(0)) == image_spec(0).key  # and no name has changed


def test_provenance_that_the_user_deleted_is_not_missed(workspace, catalog, config):
    write_manifest(catalog(0, 1), config())
    (workspace.root / "images.parquet").unlink()
    write_manifest(catalog(1, 0), config())
    assert len(retired(workspace)) == 1
    assert (workspace.root / "images.parquet").exists()


def test_a_manifest_that_stays_true_is_only_replaced(workspace, catalog, config, monkeypatch):
    write_manifest(catalog(0), config())
    seen = []
    original = NamedLinks.apply

    def apply(self, changes):
        seen.append((workspace.root / "manifest.jsonl").exists() and (workspace.root / "images.parquet").exists())
        original(self, changes)

    monkeypatch.setattr(NamedLinks, "apply", apply)
    write_manifest(catalog(0, 1), config())
    assert seen == [True]
    assert retired(workspace) == []
    assert len(lines(workspace)) == 2


@pytest.mark.parametrize(
    "change", [{"manifest_name": "rows.jsonl"}, {"image_key": "pictures"}, {"named_images": "never"}]
)
def test_an_output_has_one_manifest_which_is_that_of_the_last_run(workspace, catalog, config, change):
    write_manifest(catalog(0), config())
    write_manifest(catalog(0), config(**change))
    assert len(retired(workspace)) == 1
    new = config(**change)
    assert [path.name for path in workspace.root.glob("*.jsonl") if path.name != "failures.jsonl"] == [
        new.manifest_name
    ]
    assert manifest_form(workspace) == ManifestForm.of(new)


def test_another_way_to_write_the_output_is_another_form(workspace, catalog, config):
    write_manifest(catalog(0), config())
    write_manifest(catalog(0), config(output=f"{workspace.root}/."))
    assert len(retired(workspace)) == 1
    assert lines(workspace)[0]["images"] == [f"{workspace.root}/./{name(0)}"]


def test_a_manifest_that_the_user_deleted_is_not_missed(workspace, catalog, config):
    write_manifest(catalog(0, 1), config())
    (workspace.root / "manifest.jsonl").unlink()
    write_manifest(catalog(1, 0), config())
    assert retired(workspace) == []
    assert len(lines(workspace)) == 2


def test_names_of_rows_that_are_gone_are_removed(workspace, catalog, config):
    write_manifest(catalog(0, 1), config())
    write_manifest(catalog(0), config())
    assert [path.name for path in workspace.root.glob("sample*")] == ["sample0_condition0"]
    assert workspace.images.stat(image_spec(1).key) is not None


def test_a_manifest_just_written_is_right(workspace, catalog, config):
    made = catalog(0, 1)
    write_manifest(made, config())
    assert manifest_is_right(files_written(workspace, config()), made, config())


@pytest.mark.parametrize("file", ["manifest.jsonl", "images.parquet", "failures.jsonl"])
@pytest.mark.parametrize("damage", ["deleted", "touched", "longer", "edited"])
def test_a_manifest_is_not_right_if_a_file_is_not_as_it_was_written(workspace, catalog, config, file, damage):
    made = catalog(0, 1)
    write_manifest(made, config())
    files, path = files_written(workspace, config()), workspace.root / file
    if damage == "deleted":
        path.unlink()
    elif damage == "touched":
        os.utime(path, (5, 5))
    else:
        mtime_ns = path.stat().st_mtime_ns
        content = path.read_bytes()
        time.sleep(0.05)  # a tick of the clock
        path.write_bytes(content + b"\n" if damage == "longer" else content.replace(b"a", b"b"))
        os.utime(path, ns=(mtime_ns, mtime_ns))
    assert not manifest_is_right(files, made, config())


@pytest.mark.parametrize("damage", ["deleted", "another image", "unwanted"])
def test_a_manifest_is_not_right_if_a_name_is_not(workspace, catalog, config, damage):
    made = catalog(0, 1)
    write_manifest(made, config())
    files, keys = files_written(workspace, config()), [image_spec(i).key for i in range(2)]
    if damage == "deleted":
        (workspace.root / name(0)).unlink()
    else:
        workspace.images.link(keys[1], workspace.root / name(0, 0 if damage == "another image" else 1))
    assert not manifest_is_right(files, made, config())


def test_the_files_of_a_run_that_never_finished_are_missing(workspace, config):
    with pytest.raises(FileNotFoundError):
        files_written(workspace, config())


def test_an_interrupted_run_leaves_pending_images_out_and_calls_them_no_failure(workspace, config):
    store_image(workspace, image_spec(0))
    specs = [image_spec(i) for i in range(3)]
    made = make_catalog(workspace, *specs, records=[failed_record(specs[1])])
    accounting = write_manifest(replace(made, interrupted=True), config())
    assert [row["images"] for row in lines(workspace)] == [paths(workspace, name(0)), [], []]
    assert [failure["row"] for failure in lines(workspace, "failures.jsonl")] == [1]
    assert (accounting.rows_pending, accounting.rows_failed, accounting.rows_reused) == (1, 1, 1)
