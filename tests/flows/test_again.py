"""`only`: some images are made again, with the same seed or a new one; all others stay, and later runs keep them."""

import pytest

from flows.again import not_made_again
from t2i_core.errors import ImageFailure
from t2i_core.hashing import derive_seed
from t2i_core.storage.workspace import Workspace
from tests.builders import failed_record, image_spec, make_catalog, store_image
from tests.conftest import header_of

TEXTS = ("a red circle", "a blue square", "a green triangle")


@pytest.fixture
def dataset(prompts):
    return prompts(*TEXTS)


@pytest.fixture
def headers(output):
    """The records of the pictures that the manifest names, in its order."""
    return lambda: [header_of(path) for row in output.manifest() for path in row["images"]]


def test_again_with_the_same_seed_is_the_same_picture(run, output, dataset, headers):
    run(dataset=dataset)
    before, pixels = headers(), output.pixels()
    state = run(dataset=dataset, only=["sample1_condition0"])
    assert state.is_completed()
    assert output.counts() == {"rows": 3, "rows_generated": 1, "rows_reused": 2} | {
        "images": 3, "images_generated": 1, "images_reused": 2,
    }  # fmt: skip
    assert output.pixels() == pixels
    assert [now["run"] == then["run"] for now, then in zip(headers(), before, strict=True)] == [True, False, True]
    assert output.manifest_is_true()


def test_again_with_a_new_seed_is_another_picture_that_later_runs_keep(run, output, dataset, headers):
    run(dataset=dataset)
    before = headers()
    for attempt in (1, 2):
        assert run(dataset=dataset, only=["sample1_condition0_0"], reseed=True).is_completed()
        now = headers()
        assert [now[0], now[2]] == [before[0], before[2]]
        assert now[1]["replaces"] == before[1]["key"]
        assert now[1]["spec"]["seed"] == derive_seed(before[1]["spec"]["seed"], "reseed", attempt)
        assert output.counts()["images_generated"] == 1
        assert output.manifest_is_true()
    kept = headers()
    run(dataset=dataset)
    assert headers() == kept
    assert output.counts()["images_reused"] == 3

    pixels = output.pixels()
    run(dataset=dataset, only=[kept[1]["key"]])  # and again with that seed
    assert output.pixels() == pixels
    run(dataset=dataset, prune=True)
    assert headers()[1]["key"] == kept[1]["key"]
    assert len(output.stored()) == 3


def test_what_is_not_named_is_not_made(run, output, dataset):
    assert run(dataset=dataset, only=["sample0_condition0"]).is_completed()
    assert (output.counts()["images_generated"], output.counts()["images_pending"]) == (1, 2)
    assert [len(row["images"]) for row in output.manifest()] == [1, 0, 0]
    assert run(dataset=dataset).is_completed()
    assert (output.counts()["images_generated"], output.counts()["images_reused"]) == (2, 1)


def test_a_name_that_the_data_set_does_not_have_is_refused(run, dataset, no_model):
    state = run(dataset=dataset, only=["sample7_condition0"])
    assert (state.name, "only: 'sample7_condition0': no such image" in state.message) == ("Refused", True)


def test_an_image_that_cannot_be_made_again_stays_and_the_run_says_so(run, output, dataset, headers, monkeypatch):
    run(dataset=dataset)
    before = headers()

    def black(image, spec):
        raise ImageFailure("the image is black")

    monkeypatch.setattr("t2i_core.generation.image_writer.checked_pixels", black)
    state = run(dataset=dataset, only=["sample1_condition0"], reseed=True)
    assert state.name == "TooManyFailures"
    assert state.message == "1 of 1 images were not made again, and stay as they were: the image is black"
    assert headers() == before


def test_what_was_not_made_again_is_counted_with_a_reason(tmp_path):
    workspace, specs = Workspace(tmp_path), [image_spec(number) for number in range(3)]
    store_image(workspace, specs[0], run="this")
    store_image(workspace, specs[1], run="old")
    other = image_spec(1, seed=9)
    records = [failed_record(other, "NaN", replaces=specs[1].key, attempt=1)]
    catalog = make_catalog(workspace, *specs, records=records, run="this")
    assert not_made_again(catalog, frozenset({specs[0].key})) is None
    left = not_made_again(catalog, frozenset({specs[0].key, specs[1].key}))
    assert (left.count, left.message) == (1, "1 of 2 images were not made again, and stay as they were: NaN")
