"""Which images of several outputs belong together."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t2i_core.output.matching import match_images
from t2i_core.storage import tables


@pytest.fixture
def table(tmp_path):
    """Write the columns of an `images.parquet`: prompts, each with its number of images; return its path."""

    def write(name, *prompts, template="{}"):
        rows = [
            {"row": row, "condition": 0, "image": image, "prompt": template.format(prompt), "source_prompt": prompt}
            for row, (prompt, count) in enumerate(prompts)
            for image in range(count)
        ]
        for row in rows:
            if row["prompt"] == row["source_prompt"]:
                row["source_prompt"] = None
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.parametrize("rows", [1, 2, 4096])
def test_images_of_the_same_prompt_and_number_belong_together(table, monkeypatch, rows):
    monkeypatch.setattr(tables, "CHUNK_ROWS", rows)
    one = table("one", ("a fox", 2), ("a cat", 1), ("a dog", 1))
    other = table("other", ("a dog", 1), ("new", 1), ("a fox", 3))
    assert match_images([one, other]).tolist() == [[0, 1, 3], [2, 3, 0]]
    assert match_images([one, other, one]).tolist() == [[0, 1, 3], [2, 3, 0], [0, 1, 3]]


def test_a_template_around_the_prompt_makes_no_difference(table):
    one, other = table("one", ("a fox", 1)), table("other", ("a fox", 1), template="{}, photo")
    assert match_images([one, other]).tolist() == [[0], [0]]


def test_of_equal_prompts_the_first_belongs_to_the_first(table):
    one = table("one", ("a fox", 1), ("a cat", 1), ("a fox", 1))
    other = table("other", ("a cat", 1), ("a fox", 1), ("a fox", 1), ("a fox", 1))
    assert match_images([one, other]).tolist() == [[0, 1, 2], [1, 0, 2]]


def test_outputs_without_a_common_prompt_have_nothing_together(table):
    assert match_images([table("one", ("a fox", 1)), table("other", ("a cat", 1))]).shape == (2, 0)
