"""A file is what its content says: neither its size nor its time makes a manifest name another picture."""

import os
import time

import pytest

from tests.builders import flip_a_byte
from tests.conftest import header_of

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("then", ["another row", "sheet deleted", "preview", "nothing"])
def test_a_flipped_byte_is_no_bug_and_the_image_is_made_again(run, output, prompts, then):
    """Size and time of the file are as before, so that only who decodes it sees the damage."""
    dataset = prompts("a fox", "a cat")
    run(dataset=dataset)
    before = output.pixels()
    key = header_of(output.folder / "sample1_condition0/sample1_condition0_0.png")["key"]
    flip_a_byte(output.stored()[key])
    if then == "another row":
        prompts("a fox", "a cat", "a house")
    elif then == "sheet deleted":
        (output.folder / "contact_sheet.jpg").unlink()
    assert run(dataset=dataset, preview=2 if then == "preview" else None).is_completed()
    if then in ("preview", "nothing"):  # without other work a run decodes a few images only, for its page
        assert run(dataset=dataset).is_completed()
    assert before.items() <= output.pixels().items()
    assert output.manifest_is_true()


def same_size_and_time(*paths):
    """Pad PNGs of ours to one size, behind their end, and give them one time."""
    size = max(path.stat().st_size for path in paths)
    for path in paths:
        path.chmod(0o644)
        with path.open("ab") as file:
            file.write(bytes(size - path.stat().st_size))
        path.chmod(0o444)
        os.utime(path, ns=(0, 10**18))


def no_links(*arguments, **options):
    raise OSError("a file system without links")


def test_images_that_changed_places_are_noticed_whatever_their_size_and_time(run, output, prompts):
    """As when a tool restores files and their times: the manifest would name the picture of another prompt."""
    dataset = prompts("a fox", "a cat")
    run(dataset=dataset)
    before, (one, other) = output.pixels(), output.stored().values()
    same_size_and_time(one, other)
    assert run(dataset=dataset).is_completed()
    contents = [one.read_bytes(), other.read_bytes()]
    for path, content in zip((other, one), contents, strict=True):
        path.chmod(0o644)
        path.write_bytes(content)
        os.utime(path, ns=(0, 10**18))
    assert run(dataset=dataset).is_completed()
    assert output.counts()["images_generated"] == 2
    assert output.pixels() == before
    assert output.manifest_is_true()


def test_without_links_rows_that_changed_places_get_their_own_pictures(run, output, prompts, monkeypatch):
    """Names are copies then, and two of them may have size and time in common."""
    monkeypatch.setattr(os, "link", no_links)
    dataset = prompts("a fox", "a cat")
    run(dataset=dataset)
    same_size_and_time(*output.stored().values())
    assert run(dataset=dataset).is_completed()
    assert output.manifest_is_true()
    prompts("a cat", "a fox")
    assert run(dataset=dataset).is_completed()
    assert output.manifest_is_true()
    assert not any(path.stat().st_nlink > 1 for path in output.stored().values())


@pytest.mark.parametrize("links", [True, False])
def test_a_run_that_changes_nothing_looks_at_no_image(run, output, prompts, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    dataset = prompts("a fox", "a cat")
    run(dataset=dataset)
    time.sleep(0.1)
    run(dataset=dataset)
    monkeypatch.setattr("t2i_core.storage.image_store.read_header", lambda file: pytest.fail("looked at"))
    monkeypatch.setattr("t2i_core.output.named_copies.read_header", lambda file: pytest.fail("looked at"))
    assert run(dataset=dataset).is_completed()


def test_after_a_run_that_made_images_the_next_one_looks_at_none(run, output, prompts, monkeypatch):
    dataset = prompts("a fox", "a cat")
    run(dataset=dataset)
    monkeypatch.setattr("t2i_core.storage.image_store.read_header", lambda file: pytest.fail("looked at"))
    assert run(dataset=dataset).is_completed()
