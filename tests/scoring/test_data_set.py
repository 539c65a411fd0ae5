"""Groups of near-duplicates over a data set, in its order."""

from t2i_core.scoring.data_set import duplicate_groups
from tests.builders import image_spec, make_catalog, store_image

SPECS = [image_spec(number) for number in range(5)]


def test_images_are_grouped_in_the_order_of_the_data_set(workspace, scores):
    pixels = [store_image(workspace, spec).pixels_sha256 for spec in SPECS]
    hashes = [f"{value:016x}" for value in (1, 0xFFFF, 3, 0xFFFE)]
    known = scores(pixels[:4], score_phash=hashes)
    found, groups = duplicate_groups(make_catalog(workspace, *SPECS), known, distance=1)
    assert found.to_pylist() == pixels[:4]  # the last has no hash
    assert groups.tolist() == [0, 1, 0, 1]
    found, groups = duplicate_groups(make_catalog(workspace, SPECS[3], SPECS[2], SPECS[3]), known, distance=0)
    assert found.to_pylist() == [pixels[3], pixels[2]]
    assert groups.tolist() == [0, 1]
