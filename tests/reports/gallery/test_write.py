"""The gallery of an output: what its scripts and its page hold, and what is written when."""

import json
import os
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t2i_core.errors import OutputError
from t2i_core.output.remake import remake
from t2i_core.reports.gallery.data import FLAGS
from t2i_core.reports.gallery.write import prune_thumbnails, run_facts
from t2i_core.storage.thumbnail_store import ThumbnailStore
from tests.builders import image_spec, picture

HOSTILE = [
    "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "'\"`${x}{{7*7}}{% raw %}", "a\x00b\x07c",
    "\u202eRTL مرحبا\u202c \u2028 line \u2029", "word " * 2000, "🦊", "\\n\\u0041", "*/ gallery.images(0)", "&lt;b&gt;",
]  # fmt: skip


def flat(spec, value=90):
    return np.full((spec.height, spec.width, 3), value, np.uint8)


def flags(number):
    return {name for bit, name in enumerate(FLAGS) if number >> bit & 1}


def files(workspace):
    return {path: path.stat().st_mtime_ns for path in (workspace.root / "gallery").rglob("*.js")}


def test_what_is_searched_filtered_and_sorted_is_there_for_every_image_in_data_set_order(finish, write, columns):
    specs = [image_spec(0, width=16), image_spec(1, guidance_scale=3.5), image_spec(2, steps=9)]
    finished = finish(*specs, failed={image_spec(3): "out of memory"}, facts={"seconds": 0.5})
    assert write(finished).images == 4
    found = columns("data")
    assert found["prompt"] == ["p0", "p1", "p2", "p3"]
    assert found["row"] == [0, 1, 2, 3]
    assert found["status"] == ["generated", "generated", "generated", "failed"]
    assert found["size"] == ["16×8", "8×8", "8×8", "8×8"]
    assert found["steps"] == [4, 4, 9, 4]
    assert found["guidance_scale"] == [None, 3.5, None, None]
    assert found["seed"] == [0, 1, 2, 3]
    assert found["seconds"] == [0.5, 0.5, 0.5, None]


def test_the_details_hold_every_column_of_images_parquet_and_where_the_picture_lies(finish, write, columns, workspace):
    spec = image_spec(5, negative_prompt="blurry")
    finished = finish(spec, failed={image_spec(6): "out of memory"})
    write(finished)
    found = columns("details")
    assert found["key"] == [spec.key, image_spec(6).key]
    assert found["negative_prompt"] == ["blurry", None]
    assert found["error"] == [None, "out of memory"]
    assert found["path"] == ["sample0_condition0/sample0_condition0_0.png", None]
    assert found["picture"] == [workspace.images.location(spec.key), None]
    assert "prompt" not in found  # data/ has it


def test_the_details_hold_the_command_that_makes_the_picture_again(finish, write, columns):
    spec = image_spec(0, prompt="it's\na fox; $(reboot)", adapters=(("a" * 64, 0.5),))
    finished = finish(spec, failed={image_spec(6): "out of memory"}, facts={"batch_size": 4})
    write(finished)
    found = columns("details")
    (row, failed) = pq.read_table(finished.provenance).to_pylist()
    again = remake(row, row)
    assert f"{found['command_data'][0]}\n{found['command_run'][0]}" == again.commands("text2image", "again")
    assert found["command_lacks"][0] == again.missing[0]
    assert failed["path"] is None
    assert [found[name][1] for name in ("command_data", "command_run", "command_lacks", "picture")] == [None] * 4


@pytest.mark.parametrize("paths", ["output", "relative"])
def test_paths_are_relative_to_the_output_whatever_the_manifest_says(finish, write, columns, paths):
    write(finish(image_spec(0), manifest_paths=paths))
    assert columns("details")["path"] == ["sample0_condition0/sample0_condition0_0.png"]


@pytest.mark.parametrize("prompt", HOSTILE)
def test_no_prompt_gets_out_of_its_place(finish, write, columns, page, prompt):
    write(finish(image_spec(0, prompt=prompt)))
    assert columns("data")["prompt"] == [prompt]
    assert prompt not in page()


def test_names_of_the_data_set_and_the_model_are_escaped(finish, write, page):
    write(finish(image_spec(0)))
    assert "a &lt;small&gt; model" in page()
    assert "<small>" not in page()


def test_images_with_equal_pixels_name_the_first_of_them(finish, write, columns):
    specs = [image_spec(i) for i in range(4)]
    write(finish(specs[0], (specs[1], picture(specs[3])), specs[2], specs[3]))
    found = columns("data")
    assert found["twin"] == [None, 1, None, 1]
    assert ["duplicate" in flags(number) for number in found["flags"]] == [False, True, False, True]


def test_images_that_look_alike_name_the_first_of_them(finish, write, columns):
    specs = [image_spec(i) for i in range(5)]
    finished = finish(*specs, specs[1])
    table = pq.read_table(finished.provenance)
    first = [None, None, specs[1].key, None, specs[1].key, None]
    pq.write_table(table.append_column("duplicate_of", pa.array(first)), finished.provenance)
    write(finished)
    found = columns("data")
    assert found["alike"] == [None, 1, 1, None, 1, 1]
    assert ["alike" in flags(number) for number in found["flags"]] == [False, True, True, False, True, True]
    assert columns("details")["duplicate_of"] == first


def test_blank_pictures_cut_prompts_and_unknown_ones_are_marked(finish, write, columns):
    lengths = [
        {"encoder": "CLIPTextModel", "tokens": 77, "limit": 77, "cut": "the rest", "unknown": 0, "unread": 0.0},
        {"encoder": "T5EncoderModel", "tokens": 90, "limit": 512, "cut": None, "unknown": 40, "unread": 0.9},
    ]
    spec = image_spec(0)
    write(finish((spec, flat(spec)), facts={"prompt_lengths": lengths}))
    found = columns("data")
    assert flags(found["flags"][0]) == {"blank", "cut", "unread"}
    assert found["tokens"] == [90]


def test_thumbnails_that_are_missing_are_made_and_a_later_gallery_makes_none(finish, write, columns, workspace):
    finished = finish(*map(image_spec, range(5)))
    assert write(finished, most=2).without_thumbnail == 3
    assert write(finished).without_thumbnail == 0
    store = ThumbnailStore(workspace.root)
    chunks = set(store.folder.iterdir())
    found = columns("data")
    assert {path.name for path in (workspace.root / "gallery/thumbnails").iterdir()} == {path.name for path in chunks}
    assert len({*zip(found["thumbnails"], found["slot"], strict=True)}) == 5
    assert store.read(found["thumbnails"][0], found["slot"][0])[:2] == b"\xff\xd8"
    write(finished)
    assert set(store.folder.iterdir()) == chunks


def test_a_picture_that_cannot_be_read_has_no_thumbnail_and_no_numbers(finish, write, columns, workspace):
    spec = image_spec(0)
    finished = finish(spec, image_spec(1))
    path = workspace.root / workspace.images.location(spec.key)
    path.chmod(0o644)
    path.write_bytes(b"torn")
    assert write(finished).without_thumbnail == 1
    assert columns("data")["brightness"][0] is None
    assert columns("data")["brightness"][1] is not None


def test_only_what_changed_is_written_and_what_is_not_used_any_more_is_removed(finish, write, workspace):
    finished = finish(*map(image_spec, range(3)))
    write(finished)
    before = files(workspace)
    assert write(finished).files == 0
    assert files(workspace) == before
    written = write(finish(*map(image_spec, range(4))))
    after = files(workspace)
    assert written.files == len(after.keys() - before.keys()) == 3  # data, details, the new thumbnail
    assert {path.parent.name for path in before.keys() - after.keys()} == {"data", "details"}


def test_the_old_gallery_stands_until_the_new_one_is_whole(finish, write, workspace, page, monkeypatch):
    write(finish(image_spec(0)))
    before, scripts = page(), files(workspace)
    monkeypatch.setattr("t2i_core.reports.gallery.write.render_page", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(finish(image_spec(0), image_spec(1)))
    assert page() == before
    assert files(workspace).items() >= scripts.items()
    monkeypatch.undo()
    write(finish(image_spec(0), image_spec(1)))
    assert page() != before


def test_a_gallery_that_was_stopped_the_first_time_is_finished_by_the_next_run(finish, write, workspace, monkeypatch):
    monkeypatch.setattr("t2i_core.reports.gallery.write.render_page", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(finish(image_spec(0)))
    monkeypatch.undo()
    write(finish(image_spec(0)))
    assert (workspace.root / "gallery/index.html").is_file()


@pytest.mark.parametrize("name", ["index.html", "holiday.jpg"])
def test_a_folder_of_somebody_else_is_refused_and_left_as_it_is(finish, write, workspace, name):
    mine = workspace.root / "gallery" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("<title>mine</title>")
    with pytest.raises(
        OutputError, match=r"gallery holds files that this tool did not write; move it .*--gallery never"
    ):
        write(finish(image_spec(0)))
    assert [path.name for path in mine.parent.iterdir()] == [name]
    assert mine.read_text() == "<title>mine</title>"


def test_an_empty_folder_is_taken_and_files_of_the_user_beside_the_page_stay(finish, write, workspace):
    (workspace.root / "gallery").mkdir(parents=True)
    finished = finish(image_spec(0))
    write(finished)
    for place in ("note.txt", "data/note.txt"):
        (workspace.root / "gallery" / place).write_text("mine")
    write(finished)
    assert (workspace.root / "gallery/note.txt").read_text() == "mine"
    assert (workspace.root / "gallery/data/note.txt").read_text() == "mine"


def test_an_output_without_images_has_a_gallery_that_says_so(finish, write, page):
    assert write(finish()).images == 0
    assert '"images": 0' in page()


def test_the_report_is_beside_the_page(finish, write, workspace):
    write(finish(image_spec(0), image_spec(1), failed={image_spec(2): "out of memory"}, facts={"seconds": 0.5}))
    numbers = json.loads((workspace.root / "gallery/report.json").read_text("utf-8"))
    assert numbers["data_set"] == "p.jsonl"
    assert numbers["images"].items() >= {"images": 3, "generated": 2, "failed": 1, "reused": 0}.items()
    assert numbers["errors"] == [{"error": "out of memory", "images": 1}]
    assert numbers["images_per_second"] == 2


def test_a_run_that_makes_nothing_leaves_what_the_gallery_says_of_it():
    first = {"data_set": {"name": "p"}, "accounting": {"rows": 3, "rows_generated": 3, "rows_reused": 0}}
    second = {"data_set": {"name": "p"}, "accounting": {"rows": 3, "rows_generated": 0, "rows_reused": 3}, "run": "2"}
    assert run_facts(first) == run_facts(second)
    assert run_facts(first) != run_facts(second | {"data_set": {"name": "q"}})


def test_temporary_files_of_a_killed_run_are_removed(finish, write, workspace):
    finished = finish(image_spec(0))
    write(finished)
    stale = workspace.root / "gallery/data/.x.js.1-2.tmp"
    stale.write_text("")
    os.utime(stale, (0, 0))
    write(finished)
    assert not stale.exists()


def test_thumbnails_of_images_that_the_data_set_lost_are_pruned(finish, write, workspace):
    write(finish(image_spec(0), image_spec(1)))
    store = ThumbnailStore(workspace.root)
    before = {path.name for path in store.folder.iterdir()}
    write(finish(image_spec(2)))
    assert len(list(store.folder.iterdir())) == 2
    prune_thumbnails(workspace)
    (left,) = store.folder.iterdir()
    assert left.name not in before
    assert write(finish(image_spec(2))).files == 0


def test_two_galleries_of_one_output_are_written_one_after_the_other(finish, write, workspace):
    finished = finish(image_spec(0), image_spec(1))
    write(finished)
    (workspace.root / "gallery/index.html").unlink()
    with workspace.lock():
        second = threading.Thread(target=write, args=[finished])
        second.start()
        second.join(0.5)
        assert second.is_alive()
        assert not (workspace.root / "gallery/index.html").exists()
    second.join(20)
    assert (workspace.root / "gallery/index.html").exists()
