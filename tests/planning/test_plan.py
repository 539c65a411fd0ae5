"""Rows -> image specs: seeds that do not move, names that do not collide."""

import pytest

from t2i_core.config import Config, RowSettings
from t2i_core.dataset.rows import Prompt, Rejection, Row
from t2i_core.errors import DatasetError
from t2i_core.models.presets import PRESETS
from t2i_core.models.sampling import resolve_sampling
from t2i_core.planning.plan import GenerationSettings, safe_id, spec_of, stream, write_plan

DEMO = PRESETS["demo"]


def row(index, *texts, **fields):
    prompts = tuple(Prompt(i, text, text) for i, text in enumerate(texts))
    record = '{"images": ["mine.png"]}' if fields.get("has_images") else "{}"
    return Row(index=index, line=index + 1, record=record, prompts=prompts, **fields)


@pytest.fixture
def plan(tmp_path):
    def make(*rows, name="plan", **values):
        config = Config.from_values({"dataset": "x.jsonl", "model": "demo", **values})
        recipe = GenerationSettings("0" * 64, "float32", (), resolve_sampling(config, DEMO))
        result = write_plan(name, rows, tmp_path, config, recipe, DEMO)
        return result, list(stream(result.specs_file(tmp_path)))

    return make


def seeds(specs):
    return {(s["row"], s["condition"], s["image"]): s["seed"] for s in specs}


def by_prompt(specs):
    return [(s["prompt"], s["seed"], s["key"]) for s in specs]


def test_totals_add_up(plan):
    rejection = Rejection(2, 3, "conversations", "None", "is missing")
    rows = [row(0, "a", "b"), row(1, has_images=True), row(2, rejection=rejection), row(3, "c")]
    result, specs = plan(*rows, images_per_prompt=2)
    assert (result.rows, result.usable, result.skipped, result.rejected, result.images) == (4, 2, 1, 1, 6)
    assert len(specs) == 6


def test_files_are_named_after_row_message_and_image(plan):
    _, specs = plan(row(0, "a"), row(1, "b", "c"), images_per_prompt=2)
    assert [s["name"] for s in specs] == [
        "sample0_condition0/sample0_condition0_0.png",
        "sample0_condition0/sample0_condition0_1.png",
        "sample1_condition0/sample1_condition0_0.png",
        "sample1_condition0/sample1_condition0_1.png",
        "sample1_condition1/sample1_condition1_0.png",
        "sample1_condition1/sample1_condition1_1.png",
    ]


def test_inserting_removing_and_reordering_rows_moves_no_seed(plan):
    _, before = plan(row(0, "a"), row(1, "b"), row(2, "c"))
    _, after = plan(row(0, "c"), row(1, "new"), row(2, "a"), name="other")
    kept = {prompt: (seed, key) for prompt, seed, key in by_prompt(before)}
    for prompt, seed, key in by_prompt(after):
        if prompt != "new":
            assert kept[prompt] == (seed, key)


def test_equal_prompts_get_different_pictures_and_different_runs_the_same_ones(plan):
    _, specs = plan(row(0, "a"), row(1, "a"), row(2, "b"), row(3, "a"))
    assert len({s["key"] for s in specs}) == 4
    assert by_prompt(specs) == by_prompt(plan(row(0, "a"), row(1, "a"), row(2, "b"), row(3, "a"), name="again")[1])


def test_a_negative_prompt_or_a_size_moves_no_seed(plan):
    _, plain = plan(row(0, "a"), row(1, "a"))
    _, other = plan(row(0, "a"), row(1, "a"), name="other", negative_prompt="blurry", height=72)
    assert seeds(plain) == seeds(other)
    assert {s["key"] for s in plain}.isdisjoint(s["key"] for s in other)


def test_the_base_seed_moves_all_seeds(plan):
    assert seeds(plan(row(0, "a"))[1]) != seeds(plan(row(0, "a"), name="other", seed=1)[1])


def test_an_explicit_seed_counts_up_and_does_not_move_the_others(plan):
    _, plain = plan(row(0, "a"), row(1, "a"))
    with_seed = row(1, "a", settings=RowSettings(seed=40, images_per_prompt=2))
    _, specs = plan(row(0, "a"), with_seed, row(2, "a"), name="other")
    assert [s["seed"] for s in specs if s["row"] == 1] == [40, 41]
    assert [s["seed"] for s in specs if s["row"] != 1] == [s["seed"] for s in plain]


def test_rows_with_one_spec_share_one_key(plan):
    same = [row(i, "a", settings=RowSettings(seed=5)) for i in range(2)]
    _, specs = plan(*same)
    assert specs[0]["key"] == specs[1]["key"]
    assert specs[0]["name"] != specs[1]["name"]


def test_settings_of_a_row_replace_those_of_the_run(plan):
    _, specs = plan(row(0, "a", settings=RowSettings(steps=3, height=72, negative_prompt="x")), row(1, "b"))
    assert (specs[0]["steps"], specs[0]["height"], specs[0]["negative_prompt"]) == (3, 72, "x")
    assert (specs[1]["steps"], specs[1]["height"], specs[1]["negative_prompt"]) == (12, 64, "")


def test_settings_that_the_model_does_not_take_reject_the_row(plan, tmp_path):
    wrong = [RowSettings(height=65), RowSettings(guidance_scale=2.0)]
    result, _ = plan(*(row(i, "a", settings=settings) for i, settings in enumerate(wrong)), row(2, "b"))
    assert (result.usable, result.rejected) == (1, 2)
    first, second, _ = (r["rejection"] for r in stream(result.rows_file(tmp_path)))
    assert "use 64 or 72" in first
    assert "demo does not use it; leave it out" in second


def test_sizes_are_chosen_by_the_seed_alone(plan):
    rows = [row(i, f"prompt {i}") for i in range(40)]
    _, specs = plan(*rows, sizes=["64x64", "72x64"])
    widths = [s["width"] for s in specs]
    assert {64, 72} == set(widths)
    _, again = plan(*reversed(rows), name="other", sizes=["64x64", "72x64"])
    assert {s["prompt"]: s["width"] for s in specs} == {s["prompt"]: s["width"] for s in again}
    assert seeds(specs) == seeds(plan(*rows, name="third")[1])


def test_a_row_with_a_size_of_its_own_keeps_it(plan):
    fixed = [row(i, f"p{i}", settings=RowSettings(height=80)) for i in range(8)]
    _, specs = plan(*fixed, sizes=["64x64", "72x64"])
    assert {(s["width"], s["height"]) for s in specs} == {(64, 80)}


def test_duplicate_ids_are_rejected_but_for_the_first(plan):
    result, specs = plan(row(0, "a", id="x"), row(1, "b", id="X"), row(2, "c", id="y"), id_key="id")
    assert result.rejected == 1
    assert [s["name"].split("/")[0] for s in specs] == ["x_condition0", "y_condition0"]


@pytest.mark.parametrize("value", ["a/b", "../x", "a b", "", ".hidden", "con:1", "狐狸", "x" * 300, "a\nb"])
def test_an_unsafe_id_becomes_a_safe_name_without_collisions(value):
    name = safe_id(value)
    assert name == safe_id(name)
    assert "/" not in name
    assert not name.startswith(".")
    assert len(name) <= 100
    assert name != safe_id(value + "!")


def test_a_spec_read_back_has_the_key_it_was_written_with(plan):
    _, specs = plan(row(0, "a"), row(1, "b", settings=RowSettings(steps=2)))
    assert [spec_of(s).key for s in specs] == [s["key"] for s in specs]


def test_an_input_without_a_usable_row_is_an_error_that_shows_why(plan):
    bad = Rejection(0, 1, "conversations", "None", "is missing; add it")
    with pytest.raises(DatasetError, match=r"no usable row among 1[\s\S]*line 1, conversations: is missing; add it"):
        plan(row(0, rejection=bad))
