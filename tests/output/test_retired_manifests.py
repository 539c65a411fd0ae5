"""A manifest that no longer holds: the question whether it has to go, and what becomes of it."""

import json
import os
from dataclasses import replace

import pytest

from t2i_core.output.layout import ManifestForm
from t2i_core.output.named_links import NamedLinks
from t2i_core.output.retired_manifests import is_outdated, retire_manifest
from tests.builders import image_spec, store_image

NAME = "sample0_condition0/sample0_condition0_0.png"
OTHER = "sample1_condition0/sample1_condition0_0.png"
FORM = ManifestForm("manifest.jsonl", "out/", "images")


@pytest.fixture
def manifest(workspace):
    """Write a manifest of rows or of lines: `manifest({"images": [...]})`."""

    def write(*rows):
        path = workspace.root / FORM.name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return path

    return write


@pytest.fixture
def named(workspace):
    """Give a stored image a name; return its path by key, as a manifest gives it."""

    def link(name, number=0):
        key = store_image(workspace, image_spec(number)).key
        workspace.images.link(key, workspace.root / name)
        return FORM.prefix + workspace.images.location(key)

    return link


@pytest.fixture
def retire(workspace):
    """Retire a manifest; return the rows of its new place."""

    def call(path, form=FORM):
        before = set(workspace.manifests.glob("*"))
        retire_manifest(path, form, workspace, NamedLinks(workspace))
        (target,) = set(workspace.manifests.glob("*")) - before
        return [json.loads(line) for line in target.read_text().splitlines()]

    return call


def test_a_manifest_is_outdated_if_it_gives_a_name_that_changes(manifest):
    path = manifest({"images": ["out/" + OTHER]}, {"images": ["out/" + NAME]})
    assert is_outdated(path, FORM, FORM, {NAME})
    assert not is_outdated(path, FORM, FORM, {"sample2_condition0/sample2_condition0_0.png"})
    assert not is_outdated(path, FORM, FORM, set())


@pytest.mark.parametrize("other", [{"name": "rows.jsonl"}, {"prefix": "./out/"}, {"image_key": "pictures"}])
def test_a_manifest_of_another_form_is_outdated_whatever_it_gives(manifest, other):
    assert is_outdated(manifest({"images": []}), FORM, replace(FORM, **other), set())


def test_only_paths_of_this_output_are_names(manifest):
    path = manifest({"images": [NAME, "elsewhere/" + NAME]}, {"pictures": ["out/" + NAME]}, {"images": "out/" + NAME})
    assert not is_outdated(path, FORM, FORM, {NAME, "out/" + NAME})


def test_to_ask_changes_nothing(workspace, manifest):
    path = manifest({"images": ["out/" + NAME]})
    before = (path.read_bytes(), path.stat().st_mtime_ns, sorted(workspace.root.rglob("*")))
    is_outdated(path, FORM, replace(FORM, prefix="x"), {NAME})
    is_outdated(path, FORM, FORM, {NAME})
    assert (path.read_bytes(), path.stat().st_mtime_ns, sorted(workspace.root.rglob("*"))) == before


def test_a_manifest_is_not_read_where_no_name_changes(workspace):
    assert not is_outdated(workspace.root / "not there.jsonl", FORM, FORM, set())


def test_a_retired_manifest_gives_its_images_by_key(manifest, named, retire):
    by_key = [named(NAME, 0), named(OTHER, 1)]
    path = manifest({"a": "狐", "images": ["out/" + NAME, "out/" + OTHER], "z": [1.5, None]}, {"images": []})
    assert retire(path) == [{"a": "狐", "images": by_key, "z": [1.5, None]}, {"images": []}]
    assert not path.exists()


def test_paths_by_key_stay_as_they_are(manifest, named, retire):
    by_key = named(NAME)
    assert retire(manifest({"images": [by_key]})) == [{"images": [by_key]}]


def test_images_that_a_row_came_with_stay_as_they_are(manifest, named, retire):
    by_key = named(NAME)
    rows = [{"images": ["mine.png", "out/" + NAME]}, {"images": "one.png"}, {"images": None}, {"images": [5]}, {}]
    assert retire(manifest(*rows)) == [{"images": ["mine.png", by_key]}, *rows[1:]]


def test_a_name_whose_picture_cannot_be_told_is_left_out(workspace, manifest, named, retire):
    by_key = named(NAME)
    (workspace.root / "sample2_condition0").mkdir()
    (workspace.root / "sample2_condition0/sample2_condition0_0.png").write_bytes(b"torn")
    gone = ["out/" + OTHER, "out/sample2_condition0/sample2_condition0_0.png", "out/a\0b", "out/"]
    assert retire(manifest({"images": [*gone, "out/" + NAME]})) == [{"images": [by_key]}]


def test_lines_that_somebody_broke_are_passed_over(workspace, manifest, named, retire):
    by_key = named(NAME)
    path = manifest("", "{broken", '"text"', "[1]", json.dumps({"images": ["out/" + NAME]}))
    path.write_bytes(path.read_bytes() + b'{"a": "\xff"}\n')
    assert is_outdated(path, FORM, FORM, {NAME})
    assert retire(path) == [{"images": [by_key]}, {"a": "\ufffd"}]


def test_the_column_of_paths_is_that_of_the_manifest_itself(manifest, named, retire):
    by_key = named(NAME)
    form = replace(FORM, image_key="pictures")
    row = {"pictures": ["out/" + NAME], "images": ["out/" + NAME]}
    assert retire(manifest(row), form) == [{"pictures": [by_key], "images": ["out/" + NAME]}]


RELATIVE = ManifestForm("manifest.jsonl", "", "images")


def test_relative_paths_of_a_retired_manifest_are_relative_to_its_new_place(workspace, manifest, named, retire):
    by_key = named(NAME).removeprefix(FORM.prefix)
    ((row,),) = [retire(manifest({"images": [NAME, by_key]}), RELATIVE)]
    assert row["images"] == [by_key.replace(".t2i/", "../")] * 2
    for path in row["images"]:
        assert (workspace.manifests / path).samefile(workspace.root / NAME)


def test_relative_images_that_a_row_came_with_stay_as_they_are(manifest, named, retire):
    named(NAME)
    own = ["mine.png", "photos/1.png", "/data/2.png", "", "a_condition0/b_condition0_0.png", "x/" + NAME]
    assert retire(manifest({"images": [*own, OTHER]}), RELATIVE) == [{"images": own}]


def test_a_manifest_with_relative_paths_is_outdated_if_it_gives_a_name_that_changes(manifest):
    path = manifest({"images": [OTHER, "mine.png"]})
    assert is_outdated(path, RELATIVE, RELATIVE, {OTHER})
    assert not is_outdated(path, RELATIVE, RELATIVE, {NAME, "mine.png"})
    assert is_outdated(path, RELATIVE, FORM, set())
    assert is_outdated(path, FORM, RELATIVE, set())


def test_no_retired_manifest_takes_the_place_of_another(workspace, manifest, retire):
    for number, seconds in enumerate((10, 20)):
        path = manifest({"number": number, "images": []})
        os.utime(path, (seconds, seconds))
        assert retire(path) == [{"number": number, "images": []}]
    assert len(list(workspace.manifests.iterdir())) == 2


def test_a_manifest_stays_where_it_is_until_its_successor_is_whole(workspace, manifest, named, monkeypatch):
    named(NAME)
    path = manifest({"images": ["out/" + NAME]})

    def fail(*arguments):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="full"):
        retire_manifest(path, FORM, workspace, NamedLinks(workspace))
    assert path.exists()
    assert list(workspace.manifests.iterdir()) == []
