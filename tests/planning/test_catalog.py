"""The catalog joins what the data set asks for with what is known and what is stored."""

import pytest

from t2i_core.dataset.rows import Rejection
from t2i_core.planning.catalog import Catalog, CatalogImage, ImageState, Picture
from t2i_core.storage import tables
from t2i_core.storage.tables import read_table, write_table
from t2i_core.storage.workspace import Workspace
from tests.builders import (
    SKIPPED,
    failed_record,
    image_spec,
    images_of,
    make_catalog,
    picture,
    spoil_column,
    store_image,
)

REJECTION = Rejection(2, 3, "conversations", "None", "is missing")


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """The workspace of an output whose name Arrow would take for a URL."""
    monkeypatch.chdir(tmp_path)
    return Workspace("run-10:00")


@pytest.fixture(params=["one chunk", "many chunks"], autouse=True)
def chunks(request, monkeypatch):
    """What the catalog says does not depend on the size of the chunks it reads."""
    if request.param == "many chunks":
        monkeypatch.setattr(tables, "CHUNK_ROWS", 2)


@pytest.fixture
def specs():
    return [image_spec(i) for i in range(7)]


@pytest.fixture
def partly(workspace, specs):
    """A catalog of seven images: those of numbers 1, 2, 5 are made, 5 in this run, 3 failed for good."""
    for i in (1, 2, 5):
        store_image(workspace, specs[i], run="this run" if i == 5 else "earlier", batch_size=i)
    return make_catalog(workspace, *specs, records=[failed_record(specs[3])], run="this run")


def states(catalog):
    return [image.state.value for image in images_of(catalog)]


def test_an_image_is_generated_reused_failed_or_else_not_made(partly):
    assert states(partly) == ["failed", "reused", "reused", "failed", "failed", "generated", "failed"]


def test_without_a_run_everything_there_is_reused(workspace, specs):
    store_image(workspace, specs[0], run="r1")
    assert states(make_catalog(workspace, specs[0])) == ["reused"]


def test_a_failed_image_says_why(workspace, specs):
    catalog = make_catalog(
        workspace,
        *specs[:3],
        records=[failed_record(specs[0], error="NaN")],
        errors={specs[0].key: "another reason", specs[1].key: "OSError: a cable fell out"},
    )
    assert [image.error for image in images_of(catalog)] == [
        "NaN", "OSError: a cable fell out", "not made, for no recorded reason; run again, and report it if it stays",
    ]  # fmt: skip


def test_what_an_interrupted_run_did_not_come_to_is_pending(workspace, specs):
    store_image(workspace, specs[0])
    catalog = make_catalog(
        workspace, *specs[:4], records=[failed_record(specs[1])], errors={specs[2].key: "busy"}, interrupted=True
    )
    assert states(catalog) == ["reused", "failed", "failed", "pending"]
    assert [image.error for image in images_of(catalog)] == [None, "NaN", "busy", None]


def test_an_image_knows_its_index_its_spec_and_its_picture(workspace, specs):
    record = store_image(workspace, specs[2])
    catalog = make_catalog(workspace, specs[0], [specs[1], specs[2]])
    *_, image = images_of(catalog, ["file_size", "seconds"])
    assert isinstance(image, CatalogImage)
    assert (image.row, image.condition, image.image) == (1, 0, 1)
    assert image.name == "sample1_condition0/sample1_condition0_1.png"
    assert image.key == image.picture == specs[2].key
    assert image.state is ImageState.REUSED
    assert image.error is None
    assert image.spec == specs[2]
    assert image.arguments["prompt"] == specs[2].prompt
    assert image.facts["file_size"] == record.file_size
    assert image.facts["seconds"] is None
    assert "device" not in image.facts


def test_an_image_without_a_picture_has_no_facts(partly, specs):
    image = next(iter(images_of(partly, ["file_size"])))
    assert (image.key, image.picture, dict(image.facts)) == (specs[0].key, None, {})


def test_facts_go_to_their_own_images(partly, specs):
    facts = {image.key: image.facts.get("batch_size") for image in images_of(partly, ["batch_size"])}
    assert [facts[spec.key] for spec in specs] == [None, 1, 2, None, None, 5, None]


def test_only_the_facts_asked_for_are_read(workspace, specs):
    store_image(workspace, specs[0], versions={"torch": "2"})
    catalog = make_catalog(workspace, specs[0])
    spoil_column(workspace.records / catalog.index.name, "versions")
    assert states(catalog) == ["reused"]
    with pytest.raises(OSError):
        list(images_of(catalog, ["versions"]))


def test_rows_come_in_order_with_their_images(workspace, specs):
    store_image(workspace, specs[3])
    catalog = make_catalog(workspace, specs[0], SKIPPED, REJECTION, [specs[1], specs[2], specs[3]], specs[4], REJECTION)
    rows = list(catalog.rows(["file_size"]))
    assert [row.row for row in rows] == [0, 1, 2, 3, 4, 5]
    assert [row.line for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row.json for row in rows] == [f'{{"row": {number}}}' for number in range(6)]
    assert [row.has_images for row in rows] == [False, True, False, False, False, False]
    assert [row.rejection for row in rows] == [None, None, REJECTION, None, None, REJECTION]
    assert [[image.key for image in row.images] for row in rows] == [
        [specs[0].key], [], [], [spec.key for spec in specs[1:4]], [specs[4].key], [],
    ]  # fmt: skip
    assert rows[3].images[2].facts["file_size"] > 0


def test_a_data_set_without_images_has_rows_all_the_same(workspace):
    catalog = make_catalog(workspace, SKIPPED, REJECTION)
    assert [row.images for row in catalog.rows()] == [(), ()]
    assert list(images_of(catalog)) == list(catalog.pictures()) == list(catalog.names()) == []


def test_the_picture_of_a_failed_image_is_that_of_its_replacement(workspace, specs):
    failed = failed_record(specs[0])
    replacement = image_spec(0, seed=99)
    store_image(workspace, replacement, run="this run", replaces=failed.key)
    catalog = make_catalog(workspace, specs[0], specs[1], records=[failed], run="this run")
    image, _ = images_of(catalog, ["seed"])
    assert (image.key, image.picture, image.state) == (specs[0].key, replacement.key, "generated")
    assert (image.spec.seed, image.facts["seed"]) == (0, 99)
    assert image.error is None
    assert list(catalog.pictures()) == [Picture(replacement.key, "p0", row=0, image=0, seed=99)]
    assert catalog.unreferenced().keys == []
    names, keys, inodes = zip(*catalog.names(), strict=True)
    assert [name for part in names for name in part] == ["sample0_condition0/sample0_condition0_0.png"]
    assert [key for part in keys for key in part] == [replacement.key]
    assert [int(i) for part in inodes for i in part] == [workspace.images.stat(replacement.key).inode]


def test_rows_that_share_a_key_share_a_picture(workspace, specs):
    record = store_image(workspace, specs[0])
    catalog = make_catalog(workspace, specs[0], specs[1], specs[0])
    assert states(catalog) == ["reused", "failed", "reused"]
    assert [image.picture for image in images_of(catalog)] == [record.key, None, record.key]
    assert [picture.key for picture in catalog.pictures()] == [record.key] * 2
    assert catalog.bytes_per_pixel() == record.file_size / 64


def test_when_everything_is_made_again_images_of_other_runs_do_not_count(workspace, specs):
    store_image(workspace, specs[0], run="old")
    store_image(workspace, specs[1], run="new")
    catalog = make_catalog(workspace, *specs[:2], run="new", only_run="new")
    assert states(catalog) == ["failed", "generated"]
    assert [picture.key for picture in catalog.pictures()] == [specs[1].key]


def test_pictures_are_those_that_there_are_in_data_set_order(partly, specs):
    found = [(picture.key, picture.prompt, picture.seed) for picture in partly.pictures()]
    assert found == [(specs[i].key, f"p{i}", i) for i in (1, 2, 5)]


def test_a_picture_tells_its_row_and_which_image_of_its_prompt_it_is(workspace, specs):
    for spec in specs[:4]:
        store_image(workspace, spec)
    catalog = make_catalog(workspace, specs[0], SKIPPED, specs[1:4])
    found = [(picture.row, picture.image, picture.seed) for picture in catalog.pictures()]
    assert found == [(0, 0, 0), (2, 0, 1), (2, 1, 2), (2, 2, 3)]


def test_pictures_can_be_asked_for_by_the_keys_of_their_images(workspace, specs):
    replacement = image_spec(0, seed=99)
    failed = failed_record(specs[0])
    for spec, facts in ((replacement, {"replaces": failed.key}), (specs[1], {}), (specs[2], {})):
        store_image(workspace, spec, **facts)
    catalog = make_catalog(workspace, *specs[:4], specs[2], records=[failed])
    wanted = {specs[i].key for i in (0, 2, 3)}
    assert [picture.key for picture in catalog.pictures(wanted)] == [replacement.key, specs[2].key, specs[2].key]
    assert list(catalog.pictures(frozenset())) == []


def test_a_sample_has_as_many_images_as_asked_for(workspace, specs):
    catalog = make_catalog(workspace, *specs)
    keys = {spec.key for spec in specs}
    assert [len(catalog.sample(count)) for count in (0, 1, 3, 7, 100)] == [0, 1, 3, 7, 7]
    assert catalog.sample(3) < catalog.sample(5) < catalog.sample(7) == keys


def test_a_sample_stays_the_same_when_settings_and_rows_change(workspace):
    """Two previews with other steps show the same prompts, side by side."""
    specs = [image_spec(i) for i in range(40)]
    chosen = make_catalog(workspace, *specs).sample(8)
    prompts = {spec.prompt for spec in specs if spec.key in chosen}
    slower = [image_spec(i, steps=20) for i in range(40)]
    again = make_catalog(workspace, *slower).sample(8)
    assert {spec.prompt for spec in slower if spec.key in again} == prompts
    assert chosen.isdisjoint(again)
    fewer = make_catalog(workspace, *reversed(specs[1:])).sample(8)
    assert len(fewer & chosen) >= 7
    assert max(specs.index(spec) for spec in specs if spec.key in chosen) > 20  # not the first rows


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, []), (1, [0]), (2, [0, 5]), (3, [0, 2, 5]), (5, [0, 1, 2, 3, 5]), (6, [0, 1, 2, 3, 4, 5]), (100, range(6))],
)
def test_pictures_are_spread_over_the_whole_data_set(workspace, count, expected):
    """Every second image is made: numbers 0, 2, ... of twelve."""
    specs = [image_spec(i) for i in range(12)]
    for spec in specs[::2]:
        store_image(workspace, spec)
    catalog = make_catalog(workspace, *specs)
    assert [picture.prompt for picture in catalog.spread_pictures(count)] == [f"p{2 * i}" for i in expected]


def test_without_pictures_none_are_spread(workspace, specs):
    assert list(make_catalog(workspace, *specs).spread_pictures(9)) == []


def test_stored_images_that_the_data_set_does_not_ask_for_are_unreferenced(workspace, specs):
    records = [store_image(workspace, spec) for spec in specs]
    catalog = make_catalog(workspace, *specs[:2], *specs[4:6])
    extra = [records[i] for i in (2, 3, 6)]
    found = catalog.unreferenced()
    assert found.keys == sorted(record.key for record in extra)
    assert found.size == sum(record.file_size for record in extra)


def test_earlier_manifests_are_told_beside_unreferenced_images(partly, workspace):
    workspace.manifests.mkdir()
    names = ["b.jsonl", "a.jsonl", "notes.txt"]
    for name in names:
        (workspace.manifests / name).touch()
    expected = [workspace.manifests / name for name in ("a.jsonl", "b.jsonl")]
    assert partly.unreferenced().manifests == expected
    store_image(workspace, image_spec(99))
    assert make_catalog(workspace, image_spec(0)).unreferenced().manifests == expected


def test_where_all_images_are_asked_for_none_is_unreferenced(partly):
    assert (partly.unreferenced().keys, partly.unreferenced().size) == ([], 0)


def test_bytes_per_pixel_are_those_of_the_images_that_are_there(workspace):
    specs = [image_spec(0), image_spec(1, height=16, width=24), image_spec(2, height=800)]
    sizes = [store_image(workspace, spec).file_size for spec in specs[:2]]
    store_image(workspace, image_spec(3, height=80))  # not of this data set
    catalog = make_catalog(workspace, *specs)
    assert catalog.bytes_per_pixel() == sum(sizes) / (8 * 8 + 16 * 24)


def test_without_images_nobody_knows_how_large_files_are(workspace, specs):
    assert make_catalog(workspace, *specs).bytes_per_pixel() is None


def test_pixels_of_large_images_are_counted_exactly(workspace):
    """The plan has heights in 32 bits, where their products overflow."""
    spec = image_spec(0, height=70_000, width=70_000)
    record = store_image(workspace, spec, pixels=picture(image_spec(0)))
    assert make_catalog(workspace, spec).bytes_per_pixel() == record.file_size / 70_000**2


def test_names_tell_key_and_inode_of_the_images_that_are_there(partly, workspace, specs):
    rows = [(name, key, int(inode)) for part in partly.names() for name, key, inode in zip(*part, strict=True)]
    assert rows == [
        (f"sample{i}_condition0/sample{i}_condition0_0.png", specs[i].key, workspace.images.stat(specs[i].key).inode)
        for i in (1, 2, 5)
    ]


def test_an_image_whose_file_the_scan_does_not_have_is_not_named(workspace, specs):
    """Made during the run, after the scan: its inode is not known."""
    for spec in specs[:2]:
        store_image(workspace, spec)
    before = workspace.images.scan()
    store_image(workspace, specs[2])
    catalog = make_catalog(workspace, *specs[:3], scan=before)
    assert [key for _, keys, _ in catalog.names() for key in keys] == [spec.key for spec in specs[:2]]
    assert len(list(catalog.pictures())) == 3


@pytest.mark.parametrize(
    ("question", "column"),
    [
        (lambda catalog: list(catalog.pictures()), "source_prompt"),
        (lambda catalog: list(catalog.spread_pictures(2)), "source_prompt"),
        (lambda catalog: sorted(catalog.sample(3)), "source_prompt"),
        (lambda catalog: list(catalog.names()), "prompt"),
        (Catalog.unreferenced, "prompt"),
        (Catalog.bytes_per_pixel, "prompt"),
    ],
)
def test_columns_that_a_question_does_not_need_are_not_read(partly, workspace, question, column):
    """Prompts are most of a plan: over a million rows, reading them takes longer than the answer."""
    answer = question(partly)
    spoil_column(*partly.plan.specs_files(workspace.plans), column)
    assert str(question(partly)) == str(answer)
    with pytest.raises(OSError):
        list(images_of(partly))


def test_columns_are_those_asked_for_and_the_key(partly, specs):
    for columns, expected in ((["prompt"], ["key", "prompt"]), (["seed", "key"], ["seed", "key"]), ([], ["key"])):
        for chunk in partly.chunks(columns):
            assert chunk.specs.schema.names == expected
    parts = list(partly.chunks())
    assert [key for part in parts for key in part.specs["key"].to_pylist()] == [spec.key for spec in specs]
    assert [bool(p) for part in parts for p in part.present] == [i in (1, 2, 5) for i in range(7)]
    assert "prompt" in parts[0].specs.schema.names


def test_the_name_of_an_image_has_the_suffix_of_its_format(workspace, specs):
    store_image(workspace, specs[0], format="webp")
    store_image(workspace, specs[1])
    catalog = make_catalog(workspace, *specs[:3])
    names = [f"sample{i}_condition0/sample{i}_condition0_0" for i in range(3)]
    assert [image.name for image in images_of(catalog)] == [f"{names[0]}.webp", f"{names[1]}.png", f"{names[2]}.png"]
    linked = [(name, key) for names, keys, _ in catalog.names() for name, key in zip(names, keys, strict=True)]
    assert linked == [(f"{names[0]}.webp", specs[0].key), (f"{names[1]}.png", specs[1].key)]


def test_a_plan_of_an_earlier_version_may_lack_columns(workspace, specs):
    store_image(workspace, specs[1])
    catalog = make_catalog(workspace, *specs[:3])
    (file,) = catalog.plan.specs_files(workspace.plans)
    table = read_table(file).drop_columns(["step_cache"])
    with file.open("wb") as target:
        write_table(target, table)
    assert [row.images[0].key for row in catalog.rows()] == [spec.key for spec in specs[:3]]
