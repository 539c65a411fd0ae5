"""Which images lack scores: each picture once, with the scorers that it lacks."""

from t2i_core.scoring.pending import count_pending, pending_chunks
from t2i_core.storage.score_table import prompt_digest
from tests.builders import image_spec, make_catalog, store_image

SPECS = [image_spec(number) for number in range(5)]


def catalog_of(workspace, *specs):
    """Return the catalog of specs, all stored but the last; and the hashes of pixels."""
    pixels = [store_image(workspace, spec).pixels_sha256 for spec in specs[:-1]]
    return make_catalog(workspace, *specs), pixels


def found(catalog, known, size=100):
    chunks = list(pending_chunks(catalog, known, size))
    assert sum(len(chunk.items) for chunk in chunks) == count_pending(catalog, known)
    return [(chunk.scorers, [item.key for item in chunk.items]) for chunk in chunks]


def test_every_stored_image_that_has_no_scores_is_pending_in_chunks(workspace, scores):
    catalog, pixels = catalog_of(workspace, *SPECS)
    keys = [spec.key for spec in SPECS]
    assert found(catalog, [scores()], size=3) == [((0,), keys[:3]), ((0,), keys[3:4])]
    assert found(catalog, [scores(pixels[1:3])]) == [((0,), [keys[0], keys[3]])]
    assert found(catalog, [scores(pixels)]) == []


def test_images_are_grouped_by_what_they_lack(workspace, scores):
    catalog, pixels = catalog_of(workspace, *SPECS)
    keys = [spec.key for spec in SPECS]
    both = found(catalog, [scores(pixels[:2]), scores(pixels[1:3])])
    assert sorted(both) == [((0,), [keys[2]]), ((0, 1), [keys[3]]), ((1,), [keys[0]])]


def test_scores_that_belong_to_prompts_are_lacking_for_each_prompt(workspace, scores):
    specs = [SPECS[0], image_spec(0, prompt="another", seed=0), SPECS[1]]
    catalog, pixels = catalog_of(workspace, *specs)
    assert pixels[0] == pixels[1]  # the pictures of the builders differ by seed alone
    known = scores(pixels[:1], prompts=[prompt_digest("another")])
    assert found(catalog, [known]) == [((0,), [specs[0].key])]


def test_a_picture_that_the_data_set_shows_twice_is_scored_once(workspace, scores):
    catalog, _ = catalog_of(workspace, SPECS[0], SPECS[0], SPECS[1])
    assert found(catalog, [scores()]) == [((0,), [SPECS[0].key])]
