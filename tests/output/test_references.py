"""Which images a user means by names, keys and files."""

import pytest

from t2i_core.errors import ConfigError
from t2i_core.output.references import check_references, find_images
from tests.builders import image_spec, make_catalog, store_image

SPECS = [[image_spec(10 * row + number) for number in range(2)] for row in range(3)]
FIRST, SECOND = (spec.key for spec in SPECS[0])


@pytest.fixture
def catalog(workspace):
    """An output in which the first image of row 1 has a replacement."""
    for own in SPECS:
        for spec in own:
            store_image(workspace, spec)
    store_image(workspace, REPLACEMENT, replaces=SPECS[1][0].key, attempt=1)
    return make_catalog(workspace, *SPECS)


REPLACEMENT = image_spec(10, seed=99)


@pytest.mark.parametrize(
    "reference",
    [
        "sample0_condition0_1",
        "out/sample0_condition0/sample0_condition0_1.png",
        "sample0_condition0_1.webp",
        SECOND,
        f".t2i/images/ab/cd/{SECOND}.png",
    ],
)
def test_an_image_goes_by_its_name_its_path_or_its_key(catalog, reference):
    assert find_images(catalog, [reference]) == {SECOND}


def test_a_prompt_means_all_its_images_and_several_may_stand_in_one_text(catalog):
    both = {spec.key for spec in SPECS[0]}
    assert find_images(catalog, ["sample0_condition0"]) == both
    assert find_images(catalog, ["sample0_condition0, sample2_condition0_0", "sample1_condition0_1"]) == {
        *both,
        SPECS[2][0].key,
        SPECS[1][1].key,
    }


def test_a_replacement_means_the_image_that_it_stands_for(catalog):
    assert find_images(catalog, [REPLACEMENT.key]) == {SPECS[1][0].key}


def test_a_text_file_has_a_reference_a_line(catalog, tmp_path):
    (tmp_path / "again.txt").write_text(f"sample0_condition0_0\n\n{SECOND}\n")
    assert find_images(catalog, [str(tmp_path / "again.txt")]) == {FIRST, SECOND}


def test_a_review_means_the_pictures_that_are_shown_and_that_it_says_no_to(catalog, tmp_path):
    replaced = SPECS[1][0].key  # what was thrown out before is not thrown out once more
    lines = (f"{FIRST},no", f"{SECOND},yes", f"{replaced},no", f"{'f' * 64},no")
    (tmp_path / "review.csv").write_text("\n".join(("key,keep", *lines)))
    assert find_images(catalog, [str(tmp_path / "review.csv")]) == {FIRST}
    (tmp_path / "review.csv").write_text(f"key,keep\n{REPLACEMENT.key},no\n")
    assert find_images(catalog, [str(tmp_path / "review.csv")]) == {replaced}


def test_what_is_no_image_of_the_data_set_is_named(catalog):
    with pytest.raises(
        ConfigError, match=r"^only: 'sample0_condition1', 'sample99': no such image in the data set; write"
    ):
        find_images(catalog, ["sample99", "sample0_condition0,sample0_condition1"])


def test_a_file_that_is_not_there_is_refused_at_once(tmp_path):
    check_references(["sample0_condition0", FIRST])
    for name in ("again.txt", "review.csv"):
        with pytest.raises(ConfigError, match=rf"only: .*{name} does not exist"):
            check_references([f"sample0_condition0,{tmp_path / name}"])
