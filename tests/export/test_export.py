"""An export as a whole: which images it holds, and what it says of itself."""

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t2i_core.errors import ConfigError, OutputError
from t2i_core.export.export import check_options, target_folder
from t2i_core.export.formats import FORMATS
from t2i_core.options.export import ExportOptions, FormatName
from tests.builders import image_spec

FORMS = ("webdataset", "parquet", "imagefolder", "captions", "diffsynth", "llama-factory")


def add_scores(output, **columns):
    """Join columns of scores into images.parquet, as a run of the scorers does."""
    table = pq.read_table(output.root / "images.parquet")
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, output.root / "images.parquet")


def exported(folder):
    """The rows of a Parquet export."""
    return pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("train/*.parquet"))])


def lines(path):
    """The rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def options(**values):
    return ExportOptions.from_values({"output": "out", "format": "parquet"} | values)


def test_every_format_of_the_options_has_a_writer():
    assert set(FORMATS) == set(FormatName.__args__)


@pytest.mark.parametrize("form", FORMS)
def test_only_images_that_are_there_are_exported_and_the_others_are_listed(output, form):
    failed = image_spec(1)
    folder = output.make({}, {}, {"specs": [image_spec(2), image_spec(3)]}, without=[failed]).export(form)
    assert (output.summary["images"], output.summary["images_of_data_set"]) == (3, 4)
    assert output.summary["dropped"] == {"failed": 1}
    (line,) = (folder / "dropped.jsonl").read_text().splitlines()
    assert json.loads(line) == {"row": 1, "condition": 0, "image": 0, "key": failed.key, "reason": "failed"}


def test_a_selection_is_exported_with_its_scores(output):
    output.make(*[{"specs": [image_spec(n, prompt=f"p{n}"), image_spec(n + 10, prompt=f"p{n}")]} for n in range(3)])
    add_scores(output, score_a=[0.1, 0.9, 0.8, float("nan"), None, 0.5], score_ok=[True, True, True, True, True, False])
    table = exported(output.export("parquet", best_of=1, by="score_a"))
    assert table["seed"].tolist() == [10, 1, 12]
    assert table["score_a"].tolist() == [0.9, 0.8, 0.5]
    assert output.summary["dropped"] == {
        "best of: not among the best 1 of its prompt by score_a": 1,
        "best of: score_a has no value": 2,
    }
    table = exported(output.export("parquet", where="score_a > 0.15 and score_ok", limit=1))
    assert table["seed"].tolist() == [10]
    listed = lines(target_folder(options(output=str(output.root))) / "dropped.jsonl")
    assert [line["reason"].partition(":")[0] for line in listed] == ["where", "limit", "where", "where", "where"]


def test_scores_of_other_images_are_refused(output):
    output.make({}, {})
    add_scores(output, score_a=[1.0, 2.0])
    table = pq.read_table(output.root / "images.parquet")
    pq.write_table(table.take([1, 0]), output.root / "images.parquet")
    with pytest.raises(OutputError, match="is not of the last run; run text2image with this output once more"):
        output.export("parquet")


def test_a_caption_takes_the_place_of_the_prompt(output):
    rows = [{"caption": {"long": "a long text"}}, {"caption": {"long": " "}}, {"caption": {"long": 3}}, {}]
    table = exported(output.make(*rows).export("parquet", caption="caption.long"))
    assert table["text"].tolist() == ["a long text"]
    assert table["prompt"].tolist() == ["p0"]
    assert output.summary["dropped"] == {"no text in the column caption.long": 3}


def test_a_column_of_captions_that_no_row_has_is_refused(output):
    output.make({"caption": "a", "id": 1}, {})
    with pytest.raises(ConfigError, match="caption: no image has a text in the column captoin; rows have caption, id"):
        output.export("parquet", caption="captoin")


def test_nothing_is_written_where_no_image_is_left(output):
    output.make({}, {}, without=[image_spec(0), image_spec(1)])
    with pytest.raises(OutputError, match=r"no image is left to export \(2 failed\)"):
        output.export("parquet")
    assert not list((output.root / "exports").iterdir())


def test_splits_follow_the_prompt_before_its_template(output):
    def splits(template):
        specs = [image_spec(number, prompt=template.format(f"fox {number}")) for number in range(20)]
        output.make(*[{"specs": [spec]} for spec in specs])
        (file,) = output.catalog.plan.specs_files(output.workspace.plans)
        table = pq.read_table(file)
        source = pa.array([f"fox {number}" for number in range(20)])
        table = table.set_column(
            table.schema.get_field_index("source_prompt"), table.schema.field("source_prompt"), source
        )
        pq.write_table(table, file)
        folder = output.export("diffsynth", split="train=0.5,val=0.5")
        return {split: [row["seed"] for row in lines(folder / f"{split}.jsonl")] for split in ("train", "val")}

    assert splits("{}") == splits("{}, photo")


def test_numbers_are_such_that_every_reader_of_json_takes_them(output):
    seed = 2**53 - 10_000
    folder = output.make({"mine": 2**63, "specs": [image_spec(0, seed=seed)]}).export("diffsynth")
    row = json.loads((folder / "train.jsonl").read_text())
    assert row["seed"] == seed < 2**63
    assert row["mine"] == str(2**63)


def test_export_json_says_what_it_holds(output):
    folder = output.make({"text": 1}, {}).export("webdataset", shard_size=1, split="train=1")
    said = json.loads((folder / "export.json").read_text())
    assert (said["format"], said["run"], said["images"], said["splits"]) == ("webdataset", "r1", 2, {"train": 2})
    assert said["renamed_columns"] == {"text": "input_text"}
    assert said["options"]["shard_size"] == 1
    assert [(shard["path"], shard["images"]) for shard in said["shards"]] == [("train/00000", 1), ("train/00001", 1)]
    assert said["model"]["licence"] == "Apache-2.0"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert set(said["files"]) == files - {"export.json"}


@pytest.mark.parametrize(
    "values, why",
    [
        ({"images": "copy"}, "images: parquet cannot have them copy: they are inside its shards; leave --images out"),
        ({"format": "captions", "images": "in-place"}, "images: captions cannot have them in-place"),
        ({"format": "llava", "image_format": "jpeg"}, "image_format: images in place stay as they are"),
        ({"split": "train=2"}, "split: shares"),
        ({"format": "diffsynth", "shard_size": 5}, "shard_size: diffsynth has no shards"),
    ],
)
def test_options_that_do_not_go_together_are_refused_in_one_line(values, why):
    with pytest.raises(ConfigError, match=why) as error:
        check_options(options(**values))
    assert "\n" not in str(error.value)


def test_an_export_lies_in_the_output_unless_another_folder_is_named():
    assert str(target_folder(options())) == "out/exports/parquet"
    assert str(target_folder(options(to="/data/x"))) == "/data/x"
