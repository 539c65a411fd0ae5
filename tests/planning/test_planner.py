"""Rows -> image specs: seeds that do not move, totals that add up, rows that the model cannot make."""

import json
from dataclasses import asdict, replace
from itertools import accumulate, chain
from pathlib import Path

import pytest

from t2i_core.config import Config, RowSettings
from t2i_core.dataset.rows import Prompt, Rejection
from t2i_core.errors import DatasetError
from t2i_core.hashing import derive_seed
from t2i_core.models.presets import PRESETS
from t2i_core.models.sampling import resolve_sampling
from t2i_core.planning import plan as plan_module
from t2i_core.planning import spec_maker
from t2i_core.planning.file_names import safe_id
from t2i_core.planning.plan import ROWS, SPECS, Plan
from t2i_core.planning.planner import write_plan
from t2i_core.spec import GenerationSettings, ImageSpec, Sampling
from t2i_core.storage import tables
from t2i_core.storage.tables import read_rows, read_table
from tests.planning.conftest import DEMO, row


def seeds(specs):
    return {(s["row"], s["condition"], s["image"]): s["seed"] for s in specs}


def by_prompt(specs):
    return [(s["prompt"], s["seed"], s["key"]) for s in specs]


def test_totals_add_up(plan):
    rejected = [row(i, rejection=Rejection(i, i + 1, "conversations", "None", "is missing")) for i in (2, 4, 5)]
    skipped = [row(i, has_images=True) for i in (1, 6)]
    result, specs = plan(row(0, "a", "b"), row(3, "c"), *skipped, *rejected, images_per_prompt=2)
    assert asdict(result) == {
        "digest": "plan", "rows": 7, "usable": 2, "skipped": 2, "rejected": 3, "prompts": 3, "images": 6, "segments": 1,
    }  # fmt: skip
    assert len(specs) == 6


@pytest.mark.parametrize("rows", [1, 2, 5, 6])
def test_a_plan_is_the_same_whatever_the_size_of_its_chunks(plan, monkeypatch, rows):
    given = [row(i, "same", f"p{i}") for i in range(rows)]
    expected = plan(*given)
    monkeypatch.setattr(tables, "CHUNK_ROWS", 2)
    assert plan(*given) == expected


@pytest.mark.parametrize("first", [1, 2, 4])
def test_a_plan_is_the_same_in_many_segments(write, folder, monkeypatch, first):
    """What is counted over all rows is counted over segments, too: occurrences, ids, totals."""
    own = [RowSettings(), RowSettings(steps=3), RowSettings(seed=7, images_per_prompt=2)]
    given = [row(i, "same", f"p{i % 4}", id=f"id{i % 9}", settings=own[i % 3]) for i in range(12)]
    given += [row(12, has_images=True), row(13, rejection=Rejection(13, 14, "x", "y", "z"))]
    whole = write(*given, id_key="id", sizes=["64x64", "72x64"])
    monkeypatch.setattr(plan_module, "FIRST_SEGMENT", first)
    monkeypatch.setattr(plan_module, "SEGMENT", 4)
    told = []
    cut = write(
        *given, name="cut", id_key="id", sizes=["64x64", "72x64"], on_segment=lambda *written: told.append(written)
    )
    assert [segments for segments, _ in told] == list(range(1, cut.segments + 1))
    images = [len(list(read_rows(path))) for path in cut.specs_files(folder)]
    assert [count for _, count in told] == list(accumulate(images))
    assert cut.segments == {1: 5, 2: 4, 4: 4}[first]
    assert replace(cut, digest="plan", segments=1) == whole
    for files in (Plan.rows_files, Plan.specs_files):
        rows = [list(read_rows(path)) for path in files(cut, folder)]
        assert [*chain(*rows)] == list(read_rows(*files(whole, folder)))
    assert [len(list(read_rows(path))) for path in cut.rows_files(folder)][:2] == [first, min(4, 2 * first)]


def test_a_million_rows_with_settings_of_their_own_do_not_pile_up(plan, monkeypatch):
    monkeypatch.setattr(spec_maker, "_SERIES_KEPT", 2)
    given = [row(i, "a", settings=RowSettings(steps=1 + i % 4)) for i in range(12)]
    _, specs = plan(*given)
    assert [s["steps"] for s in specs] == [1, 2, 3, 4] * 3
    assert [ImageSpec.from_row(s).key for s in specs] == [s["key"] for s in specs]
    assert [s["seed"] for s in specs] == [derive_seed(0, "a", i // 4, 0) for i in range(12)]


def test_every_row_is_kept_as_it_came(write, folder):
    rejection = Rejection(2, None, "conversations", "None", "is missing")
    rows = [
        row(0, "a", json='{"id": 1}'),
        row(1, has_images=True),
        row(2, json=None, line=None, rejection=rejection),
        row(3, "b", "c", id="fox/1", settings=RowSettings(steps=3, seed=5, images_per_prompt=2)),
    ]
    result = write(*rows, id_key="id")
    written = list(read_rows(*result.rows_files(folder)))
    assert [r["row"] for r in written] == [0, 1, 2, 3]
    assert [r["line"] for r in written] == [1, 2, None, 4]
    assert [r["json"] for r in written] == ['{"id": 1}', '{"images": ["mine.png"]}', None, "{}"]
    assert [r["has_images"] for r in written] == [False, True, False, False]
    assert Rejection(**json.loads(written[2]["rejection"])) == rejection
    specs = list(read_rows(*result.specs_files(folder)))
    assert [s["prompt"] for s in specs] == ["a", "b", "b", "c", "c"]
    assert [s["name"].split("/")[0] for s in specs[1::2]] == [f"{safe_id('fox/1')}_condition{n}" for n in (0, 1)]
    assert [(s["seed"], s["steps"]) for s in specs[1:]] == [(5, 3), (6, 3)] * 2


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
    assert list(seeds(specs)) == [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)]


def test_a_template_keeps_the_prompt_it_was_made_from(plan):
    prompts = (Prompt(0, "a fox, photo", "a fox"), Prompt(1, "a cat", "a cat"))
    _, specs = plan(row(0, prompts=prompts))
    assert [(s["prompt"], s["source_prompt"]) for s in specs] == [("a fox, photo", "a fox"), ("a cat", None)]


def test_seeds_are_promises(plan):
    """Every image ever made is found again by them: base seed, prompt, occurrence, image number."""
    _, specs = plan(row(0, "a"), row(1, "b", "a"), images_per_prompt=2, seed=9)
    assert seeds(specs) == {
        (0, 0, 0): derive_seed(9, "a", 0, 0),
        (0, 0, 1): derive_seed(9, "a", 0, 1),
        (1, 0, 0): derive_seed(9, "b", 0, 0),
        (1, 0, 1): derive_seed(9, "b", 0, 1),
        (1, 1, 0): derive_seed(9, "a", 1, 0),
        (1, 1, 1): derive_seed(9, "a", 1, 1),
    }


def test_inserting_removing_and_reordering_rows_moves_no_seed(plan):
    _, before = plan(row(0, "a"), row(1, "b"), row(2, "c"))
    _, after = plan(row(0, "c"), row(1, "new"), row(2, "a"), name="other")
    kept = {prompt: (seed, key) for prompt, seed, key in by_prompt(before)}
    for prompt, seed, key in by_prompt(after):
        if prompt != "new":
            assert kept[prompt] == (seed, key)


def test_equal_prompts_get_different_pictures_and_different_runs_the_same_ones(plan):
    rows = [row(0, "a"), row(1, "a"), row(2, "b"), row(3, "a")]
    _, specs = plan(*rows)
    assert len({s["key"] for s in specs}) == 4
    assert by_prompt(specs) == by_prompt(plan(*rows, name="again")[1])


def test_prompts_that_differ_in_the_settings_of_their_rows_are_not_equal(plan):
    """Each counts by itself: adding a row with other settings moves no seed."""
    own = RowSettings(steps=3)
    _, specs = plan(row(0, "a"), row(1, "a", settings=own), row(2, "a", settings=own), row(3, "a"))
    first, second = derive_seed(0, "a", 0, 0), derive_seed(0, "a", 1, 0)
    assert [s["seed"] for s in specs] == [first, first, second, second]
    assert len({s["key"] for s in specs}) == 4


def test_rows_that_spell_out_the_settings_of_the_run_are_equal_to_those_that_do_not(plan):
    spelt_out = RowSettings(steps=12, height=64)
    _, specs = plan(row(0, "a"), row(1, "a", settings=spelt_out))
    assert [s["seed"] for s in specs] == [derive_seed(0, "a", 0, 0), derive_seed(0, "a", 1, 0)]


def test_rows_that_are_not_made_do_not_count_as_occurrences(plan):
    rejection = Rejection(0, 1, "x", "y", "z")
    _, specs = plan(
        row(0, "a", rejection=rejection), row(1, "a", has_images=True), row(2, "a", settings=RowSettings(height=65)),
        row(3, "a"),
    )  # fmt: skip
    assert [s["seed"] for s in specs] == [derive_seed(0, "a", 0, 0)]


def test_a_negative_prompt_or_a_size_moves_no_seed(plan):
    _, plain = plan(row(0, "a"), row(1, "a"))
    _, other = plan(row(0, "a"), row(1, "a"), name="other", negative_prompt="blurry", height=72)
    assert seeds(plain) == seeds(other)
    assert {s["key"] for s in plain}.isdisjoint(s["key"] for s in other)


def test_the_base_seed_moves_all_seeds(plan):
    assert seeds(plan(row(0, "a"))[1]) != seeds(plan(row(0, "a"), name="other", seed=1)[1])


def test_an_explicit_seed_counts_up_and_does_not_move_the_others(plan):
    _, plain = plan(row(0, "a"), row(1, "a"))
    with_seed = row(1, "a", "a", settings=RowSettings(seed=40, images_per_prompt=2))
    _, specs = plan(row(0, "a"), with_seed, row(2, "a"), name="other")
    assert [s["seed"] for s in specs if s["row"] == 1] == [40, 41, 40, 41]
    assert [s["seed"] for s in specs if s["row"] != 1] == [s["seed"] for s in plain]


def test_prompts_with_an_explicit_seed_are_passed_over_where_occurrences_are_counted(plan):
    _, specs = plan(row(0, "b", settings=RowSettings(seed=40)), row(1, "a"), row(2, "a"), row(3, "b"))
    assert [s["seed"] for s in specs] == [40, *(derive_seed(0, *parts, 0) for parts in (("a", 0), ("a", 1), ("b", 0)))]


def test_zero_is_a_seed(plan):
    _, specs = plan(row(0, "a", settings=RowSettings(seed=0)), row(1, "a"))
    assert [s["seed"] for s in specs] == [0, derive_seed(0, "a", 0, 0)]


def test_rows_with_one_spec_share_one_key(plan):
    same = [row(i, "a", settings=RowSettings(seed=5)) for i in range(2)]
    _, specs = plan(*same)
    assert specs[0]["key"] == specs[1]["key"]
    assert specs[0]["name"] != specs[1]["name"]


def test_settings_of_a_row_replace_those_of_the_run(plan):
    own = RowSettings(steps=3, height=72, negative_prompt="x", images_per_prompt=1)
    _, specs = plan(row(0, "a", settings=own), row(1, "b"), images_per_prompt=2)
    assert [(s["row"], s["steps"], s["height"], s["negative_prompt"]) for s in specs] == [
        (0, 3, 72, "x"), (1, 12, 64, ""), (1, 12, 64, ""),
    ]  # fmt: skip


def test_a_spec_has_the_model_of_the_run(folder):
    config = Config.from_values({"dataset": "x.jsonl", "model": "demo"})
    settings = GenerationSettings(
        model="m", dtype="bfloat16", adapters=(("ab" * 32, 0.5),), quantization="int8", prepare="cd" * 32,
        sampling=resolve_sampling(config, DEMO),
    )  # fmt: skip
    result = write_plan("plan", [row(0, "a")], folder, config, settings, DEMO)
    (spec,) = map(ImageSpec.from_row, read_rows(*result.specs_files(folder)))
    for name in ("model", "dtype", "adapters", "quantization", "prepare"):
        assert getattr(spec, name) == getattr(settings, name)


def test_a_spec_has_the_pixels_version_of_its_pipeline(folder, plan):
    config = Config.from_values({"dataset": "x.jsonl", "model": "demo"})
    settings = GenerationSettings(model="0" * 64, dtype="float32", sampling=resolve_sampling(config, DEMO))
    prx = replace(DEMO, pipeline_class="PRXPipeline")
    result = write_plan("prx", [row(0, "a")], folder, config, settings, prx)
    (spec,) = read_rows(*result.specs_files(folder))
    _, (other,) = plan(row(0, "a"))
    assert (spec["pixels_version"], other["pixels_version"]) == (2, 1)
    assert spec["key"] != other["key"]
    assert spec["key"] == ImageSpec.from_row(spec).key


def test_a_spec_read_back_has_the_key_it_was_written_with(plan):
    _, specs = plan(row(0, "a"), row(1, "b", settings=RowSettings(steps=2)), sizes=["64x64", "72x64"])
    assert [ImageSpec.from_row(s).key for s in specs] == [s["key"] for s in specs]


def test_a_plan_has_the_columns_that_readers_expect(write, folder):
    result = write(row(0, "a"))
    assert read_table(*result.rows_files(folder)).schema.equals(ROWS)
    assert read_table(*result.specs_files(folder)).schema.equals(SPECS)


def test_settings_that_the_model_does_not_take_reject_the_row(rejections):
    wrong = [RowSettings(height=65), RowSettings(guidance_scale=2.0)]
    first, second, _ = rejections(*(row(i, "a", settings=settings) for i, settings in enumerate(wrong)), row(2, "b"))
    assert (first["row"], first["line"], first["field"], first["value"]) == (0, 1, "generation", "")
    assert "use 64 or 72" in first["reason"]
    assert "demo does not use it; leave it out" in second["reason"]


def test_a_guess_rejects_no_row_and_the_first_whose_settings_may_have_no_effect_is_told(write, folder, caplog):
    guess = replace(
        PRESETS["sdxl-turbo"], repository="", about="settings of preset sdxl-turbo", optional=("negative_prompt",)
    )
    settings = GenerationSettings(
        model="m", dtype="float32", sampling=Sampling(height=64, width=64, steps=1, guidance_scale=0.0)
    )
    config = Config.from_values({"dataset": "x.jsonl", "model": "./m", "output": str(folder / "out")})
    rows = [row(0, "a", settings=RowSettings(seed=1))]
    rows += [row(i, "a", settings=RowSettings(negative_prompt="x")) for i in (1, 2)]
    plan = write_plan("guess", rows, folder, config, settings, guess)
    assert (plan.usable, plan.rejected) == (3, 0)
    assert [record.getMessage() for record in caplog.records] == [
        "settings  row 1: negative_prompt: StableDiffusionXLPipeline uses it only with guidance_scale above 1 "
        "(it is 0); set guidance_scale"
    ]


def test_a_rejection_keeps_its_first_reason(rejections):
    earlier = Rejection(0, 1, "conversations", "None", "is missing")
    first, second, *_ = rejections(
        row(0, id="x", rejection=earlier, settings=RowSettings(height=65)),
        row(1, "a", id="x", settings=RowSettings(height=65)),  # the id is free: row 0 has no files
        row(2, "a", id="y"),
        id_key="id",
    )
    assert Rejection(**first) == earlier
    assert second["field"] == "generation"


def test_sizes_are_chosen_by_the_seed_alone(plan):
    rows = [row(i, f"prompt {i}") for i in range(40)]
    _, specs = plan(*rows, sizes=["64x64", "72x80"])
    assert {(s["width"], s["height"]) for s in specs} == {(64, 64), (72, 80)}
    for s in specs:
        assert s["width"] == (64, 72)[derive_seed("size", s["seed"]) % 2]
    _, again = plan(*reversed(rows), name="other", sizes=["64x64", "72x80"])
    assert {s["prompt"]: s["width"] for s in specs} == {s["prompt"]: s["width"] for s in again}
    assert seeds(specs) == seeds(plan(*rows, name="third")[1])


def test_a_row_with_a_size_of_its_own_keeps_it(plan):
    for own in (RowSettings(height=80), RowSettings(width=80)):
        fixed = [row(i, f"p{i}", settings=own) for i in range(8)]
        _, specs = plan(*fixed, sizes=["64x64", "72x64"])
        assert {(s["width"], s["height"]) for s in specs} == {(own.width or 64, own.height or 64)}


def test_with_sizes_to_choose_from_a_row_with_its_own_counts_by_itself(plan):
    first, second = derive_seed(0, "a", 0, 0), derive_seed(0, "a", 1, 0)
    for own in (RowSettings(height=64), RowSettings(width=64), RowSettings(steps=3)):
        _, specs = plan(row(0, "a", settings=own), row(1, "a"), row(2, "a"), sizes=["64x64", "72x64"])
        assert [s["seed"] for s in specs] == [first, first, second]


def test_other_settings_of_a_row_leave_the_choice_of_its_size_alone(plan):
    rows = [row(i, f"p{i}", settings=RowSettings(steps=3)) for i in range(20)]
    _, specs = plan(*rows, sizes=["64x64", "72x64"])
    assert {s["width"] for s in specs} == {64, 72}
    assert {s["steps"] for s in specs} == {3}


def test_duplicate_ids_are_rejected_but_for_the_first(plan, rejections):
    rows = [row(0, "a", id="x"), row(1, "b", id="X"), row(2, "c", id="y")]
    result, specs = plan(*rows, id_key="id")
    assert result.rejected == 1
    assert [s["name"].split("/")[0] for s in specs] == ["x_condition0", "y_condition0"]
    _, second, _ = rejections(*rows, id_key="id")
    assert (second["row"], second["line"], second["field"], second["value"]) == (1, 2, "id", "'X'")
    assert second["reason"] == "an earlier row has this id; make ids unique (letter case does not count)"


@pytest.mark.parametrize("form", ["{}", "[{}]", "[7, {}]"])
def test_a_row_may_not_name_images_of_the_output_itself(rejections, form):
    own, other = "./out/../out/sample0_condition0/x.png", "outside/x.png"
    rows = [
        row(i, has_images=True, json='{"images": ' + form.format(json.dumps(path)) + "}")
        for i, path in enumerate([own, other, str(Path.cwd() / "out/x.png")])
    ]
    first, second, third = rejections(*rows, output="out")
    assert second is None
    assert (first["row"], first["line"], first["field"], first["value"]) == (0, 1, "images", repr(own))
    assert first["reason"] == (
        "lies in this run's own output, where names change their meaning; choose another --output"
    )
    assert third["reason"] == first["reason"]


def test_a_later_image_of_the_output_rejects_the_row_too(rejections):
    text = json.dumps({"pictures": ["mine.png", "out/x.png"]})
    (first, _) = rejections(row(0, has_images=True, json=text), row(1, "a"), output="out", image_key="pictures")
    assert (first["field"], first["value"]) == ("pictures", "'out/x.png'")


def test_rows_with_images_alone_are_a_data_set(write):
    result = write(row(0, has_images=True))
    assert (result.skipped, result.images) == (1, 0)


def test_an_input_without_a_usable_row_is_an_error_that_shows_why(write, folder):
    bad = [Rejection(i, i + 1, "conversations", "None", f"is missing {i}; add it") for i in range(5)]
    with pytest.raises(DatasetError) as caught:
        write(*(row(i, rejection=rejection) for i, rejection in enumerate(bad)))
    assert str(caught.value).splitlines() == [
        "x.jsonl: no usable row among 5",
        *(f"  x.jsonl: line {i + 1}, conversations: is missing {i}; add it (got None)" for i in range(3)),
    ]
    assert list(folder.iterdir()) == []


def test_a_row_that_is_rejected_for_something_else_leaves_its_id_to_a_later_row(write):
    wrong = row(0, "a", id="x", settings=RowSettings(height=65))
    plan = write(wrong, row(1, "b", id="x"), row(2, "c", id="X"), id_key="id")
    assert (plan.usable, plan.rejected) == (1, 2)


def test_a_row_keeps_the_file_that_holds_it(write, folder):
    plan = write(row(0, "a fox", file="set/a.jsonl", line=1), row(1, "a cat", file="set/b.jsonl", line=1), row(2, "b"))
    found = [(row["file"], row["line"]) for row in read_rows(*plan.rows_files(folder))]
    assert found == [("set/a.jsonl", 1), ("set/b.jsonl", 1), (None, 3)]


def test_the_first_rejections_of_an_unusable_data_set_name_their_files(write):
    bad = [row(n, rejection=Rejection(n, 4, "row", "", "is bad"), line=4, file=f"set/{n}.jsonl") for n in range(5)]
    with pytest.raises(DatasetError) as error:
        write(*bad, dataset=["set", "more"])
    shown = "".join(f"\n  set/{n}.jsonl: line 4, row: is bad" for n in range(3))
    assert str(error.value) == "set and 1 more: no usable row among 5" + shown
