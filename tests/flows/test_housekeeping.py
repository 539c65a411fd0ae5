"""What a finished run removes, and what it leaves alone."""

import os
import threading
import time

import pytest
from filelock import Timeout

from flows.housekeeping import hold_plan, prune, remove_old_plans
from t2i_core.planning.plan import rows_file
from t2i_core.storage.files import STALE_SECONDS
from t2i_core.storage.image_store import ImageStore
from t2i_core.storage.leases import Lease
from t2i_core.storage.workspace import Workspace
from tests.builders import failed_record, image_spec, make_catalog, store_image, write_plan_files

A_MINUTE = 60


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "out")


def age(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def no_lease(workspace):
    """The lease of this run, not begun: what others see of it does not matter here."""
    return Lease(workspace.leases, "this run")


def prune_now(catalog, unreferenced, *, is_mine=True):
    """Prune as a run whose manifest is the last one; return why nothing was deleted."""
    return prune(catalog, unreferenced, no_lease(catalog.workspace), lambda: is_mine)


def plans(workspace):
    return sorted(path.name for path in workspace.plans.iterdir())


def files(workspace):
    return {path.relative_to(workspace.root).as_posix() for path in workspace.root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("seconds", "stays"), [(0, True), (STALE_SECONDS - A_MINUTE, True), (STALE_SECONDS + A_MINUTE, False)]
)
def test_an_old_plan_is_removed_once_no_run_can_be_reading_it(workspace, seconds, stays):
    old = write_plan_files(workspace, image_spec(0), digest="old")
    for path in old.files(workspace.plans):
        age(path, seconds)
    remove_old_plans(make_catalog(workspace, image_spec(0)), no_lease(workspace))
    kept = ["old-000.rows.parquet", "old-000.specs.parquet"] if stays else []
    assert plans(workspace) == [*kept, "plan-000.rows.parquet", "plan-000.specs.parquet"]


def test_the_current_plan_stays_however_old_it_is(workspace):
    catalog = make_catalog(workspace, image_spec(0))
    for path in workspace.plans.iterdir():
        age(path, 100 * STALE_SECONDS)
    remove_old_plans(catalog, no_lease(catalog.workspace))
    assert plans(workspace) == ["plan-000.rows.parquet", "plan-000.specs.parquet"]


def test_only_plans_are_removed(workspace):
    catalog = make_catalog(workspace, image_spec(0))
    others = [workspace.plans / "notes.txt", workspace.records / "old.parquet", workspace.root / "mine.parquet"]
    for path in others:
        path.write_text("x")
        age(path, 100 * STALE_SECONDS)
    remove_old_plans(catalog, no_lease(catalog.workspace))
    assert all(path.exists() for path in others)


@pytest.fixture
def full(workspace):
    """An output with everything that a run may leave; its data set asks for images 0 and 1, and 2 is replaced."""
    failed, replacement = image_spec(2), image_spec(2, seed=77)
    for spec in (image_spec(0), image_spec(1), image_spec(8), image_spec(9)):
        store_image(workspace, spec)
    store_image(workspace, replacement, replaces=failed.key)
    specs = [image_spec(0), image_spec(1), failed]
    catalog = make_catalog(workspace, *specs, records=[failed_record(failed)])
    for name in ("manifest.jsonl", "images.parquet", "sample0_condition0/notes.txt", ".t2i/results/shard-v2/a"):
        path = workspace.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    workspace.manifests.mkdir()
    for name in ("a.jsonl", "b.jsonl", "notes.txt"):
        (workspace.manifests / name).write_text("x")
    return catalog


def test_prune_removes_earlier_manifests_and_images_that_no_row_asks_for_and_nothing_else(workspace, full):
    before = files(workspace)
    prune_now(full, full.unreferenced())
    unreferenced = {workspace.images.location(image_spec(number).key) for number in (8, 9)}
    gone = before - files(workspace)
    assert gone == unreferenced | {".t2i/manifests/a.jsonl", ".t2i/manifests/b.jsonl"}
    assert files(workspace) - before <= {".t2i/lock"}


def test_the_picture_of_a_replaced_image_is_asked_for(workspace, full):
    prune_now(full, full.unreferenced())
    assert workspace.images.stat(image_spec(2, seed=77).key) is not None


def test_what_is_not_known_to_this_run_stays(workspace, full):
    unreferenced = full.unreferenced()
    late = store_image(workspace, image_spec(50))  # by another run, since the scan
    (workspace.manifests / "late.jsonl").write_text("x")
    prune_now(full, unreferenced)
    assert workspace.images.stat(late.key) is not None
    assert (workspace.manifests / "late.jsonl").exists()


def test_prune_holds_the_lock_so_that_no_manifest_is_written_meanwhile(workspace, full, monkeypatch):
    deleted, original = [], ImageStore.delete

    def delete(self, key):
        with pytest.raises(Timeout):
            Workspace(workspace.root).lock().acquire(timeout=0)
        deleted.append(key)
        original(self, key)

    monkeypatch.setattr(ImageStore, "delete", delete)
    prune_now(full, full.unreferenced())
    assert sorted(deleted) == sorted(image_spec(number).key for number in (8, 9))


def test_prune_of_an_output_without_anything_to_remove_removes_nothing(workspace):
    store_image(workspace, image_spec(0))
    catalog = make_catalog(workspace, image_spec(0))
    before = files(workspace)
    prune_now(catalog, catalog.unreferenced())
    assert files(workspace) - {".t2i/lock"} == before


def test_what_was_removed_by_somebody_else_in_the_meantime_is_no_error(workspace, full):
    unreferenced = full.unreferenced()
    prune_now(full, unreferenced)
    prune_now(full, unreferenced)


def test_a_plan_that_another_run_reads_or_writes_stays_however_old_it_is(workspace):
    catalog = make_catalog(workspace, image_spec(0))
    for digest in ("theirs", "old"):
        for path in write_plan_files(workspace, image_spec(0), digest=digest).files(workspace.plans):
            age(path, 2 * STALE_SECONDS)
    segment = rows_file(workspace.plans, "theirs", 7)  # the plan grows; its summary is not known yet
    segment.write_text("x")
    age(segment, 2 * STALE_SECONDS)
    with Lease(workspace.leases, "their run") as theirs:
        theirs.begin("theirs")
        remove_old_plans(catalog, no_lease(workspace))
        kept = {name.partition("-")[0] for name in plans(workspace)}
        assert kept == {"plan", "theirs"}
        assert segment.exists()
    remove_old_plans(catalog, no_lease(workspace))
    assert {name.partition("-")[0] for name in plans(workspace)} == {"plan"}


def test_prune_takes_nothing_beside_another_run_and_names_it(workspace, full):
    before = files(workspace)
    with Lease(workspace.leases, "their run") as theirs:
        theirs.begin("theirs")
        why = prune_now(full, full.unreferenced())
        assert f"another run uses this output (process {os.getpid()} on " in why
        assert "run again with --prune once it is done" in why
        assert before <= files(workspace)
    assert prune_now(full, full.unreferenced()) == ""
    assert not before <= files(workspace)


def test_prune_takes_nothing_after_another_run_wrote_its_manifest(workspace, full):
    before = files(workspace)
    assert "another run wrote its manifest" in prune_now(full, full.unreferenced(), is_mine=False)
    assert before <= files(workspace)


def test_a_run_that_begins_waits_until_the_other_one_has_pruned(workspace, full, monkeypatch):
    """Else it would find images that are deleted after it looked."""
    begun, original = [], ImageStore.delete

    def begin():
        hold_plan(Workspace(workspace.root), Lease(workspace.leases, "begins"), "theirs")
        begun.append(True)

    thread = threading.Thread(target=begin)

    def delete(self, key):
        if not thread.ident:
            thread.start()
        assert not begun
        original(self, key)

    monkeypatch.setattr(ImageStore, "delete", delete)
    assert prune_now(full, full.unreferenced()) == ""
    thread.join(A_MINUTE)
    assert begun
