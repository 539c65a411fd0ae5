"""How a run names its manifest and its images."""

import pytest

from t2i_core.output.layout import NAMED_IMAGES_LIMIT, Layout, ManifestForm
from tests.builders import image_spec, store_image

NAME = "sample0_condition0/sample0_condition0_0.png"


@pytest.mark.parametrize(
    ("choice", "images", "named"),
    [
        ("auto", 0, True),
        ("auto", 100_000, True),
        ("auto", 100_001, False),
        ("always", 100_001, True),
        ("never", 1, False),
    ],
)
def test_images_are_named_as_configured_and_auto_up_to_a_number(config, choice, images, named):
    assert Layout.of(config(named_images=choice), images).named is named
    assert NAMED_IMAGES_LIMIT == 100_000


@pytest.mark.parametrize(
    ("output", "prefix"),
    [("out", "out/"), ("out/", "out/"), ("./a/b", "./a/b/"), ("/a//", "/a/"), ("/", "/"), ("runX/", "runX/")],
)
def test_a_path_is_the_output_as_given_then_the_file(config, output, prefix):
    form = ManifestForm.of(config(output=output, manifest_name="rows.jsonl", image_key="pictures"))
    assert form == ManifestForm("rows.jsonl", prefix, "pictures")


def test_a_path_relative_to_the_manifest_is_the_file_alone(workspace, config):
    form = ManifestForm.of(config(output="/a/b", manifest_paths="relative"))
    assert form == ManifestForm("manifest.jsonl", "", "images")
    record = store_image(workspace, image_spec(0))
    named, by_key = (
        Layout.of(config(output="/a/b", manifest_paths="relative", named_images=choice), 1)
        for choice in ("always", "never")
    )
    where = NAME, record.key, "png", workspace.images
    assert named.path(*where) == NAME
    assert (workspace.root / by_key.path(*where)).stat().st_size == record.file_size


def test_images_without_metadata_have_names_whatever_their_number(config):
    """Without names the manifest would lead to the images by key, which have it."""
    assert not Layout.of(config(), 100_001).named
    assert Layout.of(config(embed_metadata="none"), 100_001).named


def test_an_image_has_a_path_by_name_or_by_key(workspace, config):
    key = image_spec(0).key
    named, by_key = (Layout.of(config(output="out", named_images=choice), 2) for choice in ("always", "never"))
    assert named.path(NAME, key, "png", workspace.images) == f"out/{NAME}"
    assert by_key.path(NAME, key, "webp", workspace.images) == f"out/.t2i/images/{key[:2]}/{key[2:4]}/{key}.webp"
