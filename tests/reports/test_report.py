"""What a person reads after a run, and what a program reads in run.json."""

import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from PIL import Image

from t2i_core import __version__
from t2i_core.config import Config
from t2i_core.models.presets import PRESETS
from t2i_core.output.accounting import ROWS_SHOWN, Accounting
from t2i_core.planning.catalog import Unreferenced
from t2i_core.planning.plan import Plan
from t2i_core.reports import report as module
from t2i_core.reports.report import SHEET_IMAGES, prunable, run_json, write_report
from tests.builders import image_spec, make_catalog, store_image
from tests.reports.conftest import MODEL

MADE = Accounting(rows=3, rows_generated=2, rows_reused=1, images=4, images_generated=3, images_reused=1)
FAILED = replace(MADE, rows=5, rows_failed=2, rows_rejected=1, images=5, images_failed=1)
PENDING = replace(MADE, rows=4, rows_pending=1, images=6, images_pending=2)


def lines(report):
    """The lines of the summary by their first word."""
    parts = [line.split(maxsplit=1) for line in report.summary().splitlines()]
    assert len({word for word, _ in parts}) == len(parts)
    return dict(parts)


def test_the_summary_of_a_run_without_failures(report, workspace):
    out = workspace.root
    assert report(accounting=MADE).summary().splitlines() == [
        "model     demo (demo model, 64x64, for trying the tool)",
        "rows      3: 2 generated, 1 reused, 0 skipped (had images), 0 failed",
        "images    4: 3 generated, 1 reused, 0 failed",
        "time      12.3 s, 0.75 images/s",
        f"manifest  {out}/manifest.jsonl",
        f"sheet     {out}/contact_sheet.jpg",
        "licence   Apache-2.0",
    ]


def test_the_summary_names_failures_and_where_they_are(report, workspace):
    said = lines(report(accounting=FAILED))
    assert said["rows"] == "5: 2 generated, 1 reused, 0 skipped (had images), 2 failed"
    assert said["images"] == "5: 3 generated, 1 reused, 1 failed"
    assert said["failures"] == f"{workspace.root}/failures.jsonl"


def test_the_summary_of_an_interrupted_run_says_what_is_left_and_how_to_go_on(report):
    said = lines(report(accounting=PENDING, state="interrupted"))
    assert said["rows"].endswith("0 failed, 1 not made yet")
    assert said["images"].endswith("0 failed, 2 not made yet")
    assert said["stopped"] == "run the same command again to go on"
    again = lines(report(accounting=PENDING, state="interrupted", refresh=True))["stopped"]
    assert again == "run the same command again without --refresh to go on"


def test_without_a_picture_there_is_no_sheet_to_look_at(report):
    nothing = Accounting(rows=2, rows_failed=1, rows_pending=1, images=2, images_failed=1, images_pending=1)
    assert "sheet" not in lines(report(accounting=nothing))
    assert "sheet" in lines(report(accounting=replace(nothing, images=3, images_reused=1)))


def test_where_nothing_was_made_there_is_no_speed(report):
    assert lines(report(accounting=Accounting(images=1, images_reused=1)))["time"] == "12.3 s"
    assert report(accounting=MADE, generating_seconds=0.0).images_per_second == 0.0


def test_the_time_counts_from_the_start_of_the_command_and_says_what_the_start_up_took(report):
    made = report(accounting=MADE, startup_seconds=4.12)
    assert lines(made)["time"] == "16.5 s, of which 4.1 s start-up, 0.75 images/s"
    assert lines(report(startup_seconds=4.12))["time"] == "16.5 s, of which 4.1 s start-up"


def test_the_output_is_named_as_given_without_its_slash(report):
    said = lines(report(accounting=FAILED, output="./out/", manifest_name="my rows.jsonl"))
    assert said["manifest"] == "./out/my rows.jsonl"
    assert said["failures"] == "./out/failures.jsonl"
    assert said["sheet"] == "./out/contact_sheet.jpg"


@pytest.mark.parametrize(
    ("rows", "shown"), [(2, "0, 1"), (ROWS_SHOWN, "0, 1, 2, 3, 4"), (ROWS_SHOWN + 1, "0, 1, 2, 3, 4, …")]
)
def test_cut_prompts_are_told_with_their_first_rows(report, rows, shown):
    said = lines(report(accounting=replace(MADE, images_cut=9, rows_cut=list(range(rows)))))
    assert said["cut"] == (
        f"9 images have a prompt longer than a text encoder takes (rows {shown}): prompt_lengths in images.parquet"
    )


def test_images_that_a_safety_checker_replaced_have_a_line_of_their_own(report):
    said = lines(report(accounting=replace(FAILED, images_unsafe=1)))
    assert said["safety"] == "1 of 1 failed images: replaced or refused by the model's safety checker"
    assert "safety" not in lines(report(accounting=FAILED))


@pytest.mark.parametrize(
    ("prompts", "rows", "encoders", "told"),
    [
        (1, [7], ["T5EncoderModel"], "1 prompt is more than a third unknown to T5EncoderModel (row 7)"),
        (9, [*range(6)], ["A", "B"], "9 prompts are more than a third unknown to A and B (rows 0, 1, 2, 3, 4, …)"),
    ],
)
def test_prompts_that_an_encoder_does_not_know_are_told_with_their_first_rows(report, prompts, rows, encoders, told):
    unread = replace(MADE, prompts_unread=prompts, rows_unread=rows, unread_by=encoders)
    assert lines(report(accounting=unread))["unread"] == f"{told}: prompt_lengths in images.parquet"
    assert "unread" not in lines(report(accounting=MADE))


MANIFESTS = [Path("a.jsonl"), Path("b.jsonl")]


@pytest.mark.parametrize(
    ("manifests", "told", "them"),
    [
        ([], "", "them"),
        (MANIFESTS[:1], ", and 1 earlier manifest", "them and 1 earlier manifest"),
        (MANIFESTS, ", and 2 earlier manifests", "them and 2 earlier manifests"),
    ],
)
def test_unused_images_and_earlier_manifests_are_told_and_so_is_what_was_deleted(report, manifests, told, them):
    unused = Unreferenced(["a", "b"], 2_500_000, manifests)
    assert prunable(unused) == f"2 stored images, 2.5 MB{told}"
    assert lines(report(unreferenced=unused))["unused"] == (
        f"2 stored images, 2.5 MB, are not in this manifest; --prune deletes {them}"
    )
    said = lines(report(unreferenced=unused, prune=True))
    assert said["pruned"] == f"2 stored images, 2.5 MB{told}"
    said = lines(report(unreferenced=unused, prune=True, not_pruned="another run uses this output"))
    assert said["pruned"] == "nothing: another run uses this output"
    assert "unused" in lines(report(unreferenced=unused, prune=True, state="interrupted"))
    assert "unused" not in said


def test_without_unused_images_there_is_nothing_to_tell(report):
    assert not {"unused", "pruned"} & set(lines(report(unreferenced=Unreferenced([], 0, MANIFESTS))))


def test_a_limited_run_read_too_little_to_call_an_image_unused(report):
    assert "unused" not in lines(report(unreferenced=Unreferenced(["a"], 5, []), limit=3))


def test_a_preset_without_note_or_description_is_its_name_alone(report):
    said = lines(report(preset=replace(PRESETS["demo"], about="", licence_note="")))
    assert said["model"] == "demo"


def test_the_summary_names_a_model_as_its_user_did(report):
    def said(name, preset, licence=None):
        config = Config.from_values({"dataset": "prompts.jsonl", "model": name})
        return lines(report(config=config, preset=preset, model=replace(MODEL, licence=licence)))

    dev, guess = PRESETS["flux-dev"], replace(PRESETS["sdxl"], repository="", licence_note="", about="settings of sdxl")
    assert said("flux-dev", dev)["model"] == f"flux-dev ({dev.about})"
    assert said(dev.repository, dev)["model"] == f"{dev.repository} (preset flux-dev, {dev.about})"
    assert said("./my model", guess)["model"] == "./my model (settings of sdxl)"


def test_the_licence_is_that_of_the_preset_or_the_model_and_never_that_of_another_model(report):
    guess = replace(PRESETS["flux-dev"], repository="", licence_note="")
    assert lines(report(preset=guess, model=replace(MODEL, licence="mit")))["licence"] == "mit"
    assert lines(report(preset=guess, model=replace(MODEL, licence=None)))["licence"] == "not stated"


def test_the_message_of_a_run(report, workspace):
    assert report(accounting=MADE).message() == "3 images made, 1 reused"
    assert (
        report(accounting=PENDING, state="interrupted").message() == "stopped: 3 images made, 1 reused, 2 not made yet"
    )
    assert report(accounting=FAILED).message() == (
        f"3 images made, 1 reused, 2 failures: see {workspace.root}/failures.jsonl"
    )


def test_failures_are_too_many_by_the_configuration(report):
    assert report(accounting=FAILED).too_many_failures
    assert not report(accounting=FAILED, max_failures=2.0).too_many_failures
    assert report(accounting=FAILED, max_failures=0.3).too_many_failures
    assert not report(accounting=FAILED, max_failures=0.34).too_many_failures


@pytest.fixture
def catalog(workspace):
    """The catalog of `count` stored images and of one that is missing."""

    def make(count):
        specs = [image_spec(i, prompt=f"prompt {i}") for i in range(count + 1)]
        for spec in specs[:count]:
            store_image(workspace, spec)
        return make_catalog(workspace, *specs)

    return make


def test_run_json_holds_configuration_data_set_model_accounting_and_versions(report, catalog):
    made = report(accounting=MADE, timings={"denoise": 1.23456}, seed=7, startup_seconds=4.1234)
    of_one_image = catalog(1)
    values = json.loads(json.dumps(run_json(made, of_one_image)))
    assert set(values) == {
        *("state", "run", "message", "configuration", "data_set", "model", "accounting", "work", "seconds"),
        *("output", "startup_seconds"),
        *("generating_seconds", "timings", "images_per_second", "versions"),
    }
    assert (values["state"], values["run"], values["message"]) == ("finished", "r1", "3 images made, 1 reused")
    assert values["configuration"] == json.loads(json.dumps(made.config.model_dump()))
    assert {"name": "prompts.jsonl", "plan": "plan", "rows": 2}.items() <= values["data_set"].items()
    assert Plan.from_summary(values["data_set"]) == of_one_image.plan
    assert values["model"] == {
        "name": "demo",
        "preset": "demo",
        "about": "demo model, 64x64, for trying the tool",
        "guess": None,
        "source": "bundled",
        "location": "/models/demo",
        "commit": None,
        "checkpoints": [],
        "identity": MODEL.identity,
        "pipeline": "FluxPipeline",
        "licence": "Apache-2.0",
    }
    assert values["accounting"] == asdict(MADE)
    assert (values["seconds"], values["generating_seconds"], values["images_per_second"]) == (12.34, 4.0, 0.75)
    assert values["startup_seconds"] == 4.123
    assert values["timings"] == {"denoise": 1.235}
    assert values["versions"]["text2image"] == __version__
    assert {"python", "prefect", "torch", "diffusers", "transformers", "huggingface_hub", "pillow"} < set(
        values["versions"]
    )


def test_run_json_calls_the_work_as_it_always_did(report, catalog):
    work = run_json(report(), catalog(0))["work"]
    assert work == {"images": 3, "batches": 2, "shards": 1, "batch_size": 2, "pixels": 192, "effort": 768}


def test_run_json_has_every_total_of_the_accounting(report, catalog):
    assert set(run_json(report(), catalog(0))["accounting"]) == {item.name for item in fields(Accounting)}


def test_the_model_s_own_licence_stands_in_for_a_preset_without_note(report, catalog):
    other = report(preset=replace(PRESETS["demo"], licence_note=""), model=replace(MODEL, licence="mit"))
    assert run_json(other, catalog(0))["model"]["licence"] == "mit"


def test_the_report_is_written_as_text_that_can_be_read(report, catalog, workspace):
    write_report(report(dataset="狐.jsonl"), catalog(1))
    text = (workspace.root / "run.json").read_text("utf-8")
    assert text.endswith("}\n")
    assert "狐.jsonl" in text
    assert json.loads(text)["state"] == "finished"


def test_a_sheet_of_the_same_images_is_kept_and_a_missing_one_is_made(report, catalog, workspace):
    sheet = workspace.root / "contact_sheet.jpg"
    write_report(report(), catalog(1), same_images=True)
    assert sheet.is_file()
    made = sheet.read_bytes()
    sheet.write_bytes(made + b"kept")
    write_report(report(), catalog(1), same_images=True)
    assert sheet.read_bytes() == made + b"kept"
    write_report(report(), catalog(1))
    assert sheet.read_bytes() == made


def test_the_contact_sheet_shows_images_from_the_first_to_the_last(report, catalog, workspace, monkeypatch):
    seen = []
    original = module.write_contact_sheet
    monkeypatch.setattr(
        module, "write_contact_sheet", lambda *arguments: seen.append(arguments) or original(*arguments)
    )
    write_report(report(accounting=replace(MADE, images=40, images_failed=1)), catalog(2 * SHEET_IMAGES - 1))
    ((_, name, pictures, images, title, total),) = seen
    assert total == 39
    assert name == "contact_sheet.jpg"
    assert title == "demo (demo model, 64x64, for trying the tool)"
    assert [picture.prompt for picture in pictures] == [f"prompt {2 * i}" for i in range(SHEET_IMAGES)]
    assert images is workspace.images
    with Image.open(workspace.root / name) as sheet:
        assert sheet.format == "JPEG"


def test_a_preset_without_a_description_is_the_title_alone(report, catalog, monkeypatch):
    titles = []
    monkeypatch.setattr(
        module, "write_contact_sheet", lambda files, name, pictures, images, title, total: titles.append(title)
    )
    write_report(report(preset=replace(PRESETS["demo"], about="")), catalog(1))
    assert titles == ["demo"]
