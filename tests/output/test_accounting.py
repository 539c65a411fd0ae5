"""Every row and every image is counted once, and failures are held against what is tolerated."""

from dataclasses import replace

import pyarrow as pa
import pytest

from t2i_core.dataset.rows import Rejection
from t2i_core.errors import SafetyFailure
from t2i_core.output.accounting import ROWS_SHOWN, Accounting, exceeds
from t2i_core.output.provenance import SCHEMA
from t2i_core.planning.catalog import CatalogImage, CatalogRow, ImageState
from t2i_core.planning.plan import ROWS
from tests.builders import SKIPPED, failed_record, image_spec, make_catalog, store_image

GENERATED, REUSED, FAILED, PENDING = ImageState.GENERATED, ImageState.REUSED, ImageState.FAILED, ImageState.PENDING
REJECTION = Rejection(0, 1, "prompt", "''", "is empty")
WHOLE = {"encoder": "CLIP", "tokens": 5, "limit": 77, "cut": None}
CUT = {"encoder": "T5", "tokens": 90, "limit": 77, "cut": "the rest"}


def image(state, *lengths):
    picture = "k" if state in (GENERATED, REUSED) else None
    facts = {"prompt_lengths": list(lengths) or None} if picture else {}
    return CatalogImage(0, 0, 0, "n", "k", state, picture, facts, None, {})


def row(*images, number=0, rejection=None, has_images=False):
    return CatalogRow(number, None, "{}", has_images, rejection, images)


def columns(rows, first):
    """Rows and their images as `Accounting.add` takes them."""
    kept = [
        {"row": first + i, "has_images": r.has_images, "rejection": r.rejection and "{}"} for i, r in enumerate(rows)
    ]
    images = [
        {"row": first + number, "condition": one.condition, "status": one.state, "error": one.error, **one.facts}
        for number, row in enumerate(rows)
        for one in row.images
    ]
    return pa.RecordBatch.from_pylist(kept, ROWS), pa.RecordBatch.from_pylist(images, SCHEMA)


def counted(*rows):
    """Count rows in two portions, which are numbered from the number of the first one."""
    accounting, middle, first = Accounting(), len(rows) // 2, rows[0].row
    accounting.add(*columns(rows[:middle], first))
    accounting.add(*columns(rows[middle:], first + middle))
    return accounting


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([GENERATED], "generated"),
        ([REUSED], "reused"),
        ([FAILED], "failed"),
        ([PENDING], "pending"),
        ([], "reused"),
        ([REUSED, GENERATED], "generated"),
        ([GENERATED, PENDING, REUSED], "pending"),
        ([PENDING, GENERATED, FAILED, REUSED], "failed"),
    ],
)
def test_a_row_is_what_the_worst_of_its_images_is(states, expected):
    accounting = counted(row(*map(image, states)))
    assert accounting.rows == 1
    rows = {
        name: getattr(accounting, f"rows_{name}") for name in ("generated", "reused", "skipped", "failed", "pending")
    }
    assert {name for name, count in rows.items() if count} == {expected}
    images = {state: getattr(accounting, f"images_{state}") for state in ImageState}
    assert images == {state: states.count(state) for state in ImageState}
    assert accounting.images == len(states)


def test_a_row_that_came_with_images_is_skipped_and_has_none_to_count():
    accounting = counted(row(has_images=True), row(has_images=True))
    assert (accounting.rows, accounting.rows_skipped, accounting.images, accounting.failures) == (2, 2, 0, 0)


def test_a_rejected_row_is_failed_and_a_failure():
    accounting = counted(row(rejection=REJECTION), row(rejection=REJECTION))
    assert (accounting.rows, accounting.rows_failed, accounting.rows_rejected) == (2, 2, 2)
    assert (accounting.images, accounting.failures) == (0, 2)


def test_a_row_all_of_whose_images_failed_is_one_failed_row_and_as_many_failures_as_images():
    accounting = counted(row(image(FAILED), image(FAILED)), row(rejection=REJECTION))
    assert (accounting.rows_failed, accounting.images_failed, accounting.failures) == (2, 2, 3)


def test_the_totals_of_a_data_set_add_up(workspace):
    specs = [image_spec(i) for i in range(8)]
    for spec in specs[:3]:
        store_image(workspace, spec, run="earlier")
    for spec in specs[3:5]:
        store_image(workspace, spec, run="now")
    records = [failed_record(specs[5])]
    rows = [specs[0], specs[1:4], REJECTION, SKIPPED, [specs[4], specs[5]], specs[6], specs[7]]
    catalog = make_catalog(workspace, *rows, records=records, run="now", interrupted=True)
    a = counted(*catalog.rows(["prompt_lengths"]))
    assert a.rows == 7 == a.rows_generated + a.rows_reused + a.rows_skipped + a.rows_failed + a.rows_pending
    assert a.images == 8 == a.images_generated + a.images_reused + a.images_failed + a.images_pending
    assert (a.rows_generated, a.rows_reused, a.rows_skipped, a.rows_failed, a.rows_pending) == (1, 1, 1, 2, 2)
    assert (a.images_generated, a.images_reused, a.images_failed, a.images_pending) == (2, 3, 1, 2)
    assert a.images_present == 5


def failures(images, failed, rejected=0):
    return Accounting(images=images, images_failed=failed, rows_rejected=rejected)


@pytest.mark.parametrize(
    ("accounting", "allowed", "too_many"),
    [
        (failures(10, 0), 0, False),
        (failures(10, 1), 0, True),
        (failures(10, 0, rejected=1), 0, True),
        # A count.
        (failures(10, 1, rejected=1), 2, False),
        (failures(10, 2, rejected=1), 2, True),
        (failures(10, 1), 1.0, False),
        (failures(10, 2), 1.0, True),
        # A share, of the images and of the rejected rows, which have none.
        (failures(10, 1), 0.1, False),
        (failures(10, 2), 0.1, True),
        (failures(98, 0, rejected=2), 0.02, False),
        (failures(99, 0, rejected=2), 0.02, False),
        (failures(97, 1, rejected=2), 0.02, True),
        (failures(4, 1, rejected=4), 0.625, False),
        (failures(4, 2, rejected=4), 0.625, True),
        (failures(0, 0), 0.5, False),
    ],
)
def test_failures_are_too_many_above_a_count_or_a_share(accounting, allowed, too_many):
    assert accounting.too_many_failures(allowed) is too_many


@pytest.mark.parametrize(
    ("failures", "total", "allowed", "too_many"),
    [(0, 0, 0, False), (1, 1, 0, True), (1, 1, 1, False), (2, 4, 0.5, False), (3, 4, 0.5, True), (3, 4, 5, False)],
)
def test_an_allowance_below_one_is_a_share_and_from_one_on_a_count(failures, total, allowed, too_many):
    assert exceeds(failures, total, allowed) is too_many


def test_a_later_run_that_made_nothing_reused_everything():
    before = counted(
        row(image(GENERATED, CUT), image(REUSED)), row(image(REUSED)), row(image(FAILED)), row(rejection=REJECTION)
    )
    after = before.all_reused()
    assert (after.rows_generated, after.rows_reused, after.images_generated, after.images_reused) == (0, 2, 0, 3)
    assert (after.rows, after.images, after.rows_failed, after.failures) == (4, 4, 2, 2)
    assert (after.images_cut, after.rows_cut) == (1, [0])
    assert (before.rows_generated, before.images_generated) == (1, 1)


def test_images_whose_prompt_was_cut_are_counted_once_each():
    accounting = counted(
        row(image(GENERATED, WHOLE, CUT), image(REUSED, CUT, CUT), image(GENERATED, WHOLE), number=3),
        row(image(GENERATED), image(FAILED), image(PENDING), number=4),
    )
    assert (accounting.images_cut, accounting.rows_cut) == (2, [3])


def test_images_that_a_safety_checker_replaced_are_counted_among_those_that_failed():
    safety = replace(image(FAILED), error=f"{SafetyFailure.PREFIX}it replaced the image")
    black = replace(image(FAILED), error="the image is black")
    accounting = counted(row(safety, black, image(GENERATED)), row(safety), row(image(PENDING)))
    assert (accounting.images_failed, accounting.images_unsafe) == (3, 2)
    assert accounting.failures == 3


def test_one_more_row_is_named_than_is_shown():
    accounting = counted(*(row(image(GENERATED, CUT), number=i) for i in range(ROWS_SHOWN + 4)))
    assert accounting.rows_cut == list(range(ROWS_SHOWN + 1))
    assert accounting.images_cut == ROWS_SHOWN + 4


def test_two_accountings_do_not_share_their_rows():
    counted(row(image(GENERATED, CUT)))
    assert Accounting().rows_cut == []


def unread(encoder, share):
    return WHOLE | {"encoder": encoder, "unknown": 1, "unread": share}


def prompt(condition, *images):
    return [replace(one, condition=condition) for one in images]


def test_prompts_that_an_encoder_does_not_know_are_counted_once_each():
    known, unknown = unread("CLIP", 0.0), unread("T5", 0.9)
    accounting = counted(
        row(*prompt(0, image(GENERATED, known, unknown), image(REUSED, known, unknown)), number=3),
        row(*prompt(0, image(GENERATED, known)), *prompt(1, image(GENERATED, unknown)), number=4),
        row(*prompt(0, image(GENERATED, unread("BERT", 0.34), unknown)), number=5),
        row(*prompt(0, image(GENERATED, unread("CLIP", 1 / 3)), image(FAILED)), number=6),
    )
    assert (accounting.prompts_unread, accounting.rows_unread) == (3, [3, 4, 5])
    assert accounting.unread_by == ["T5", "BERT"]
    assert accounting.all_reused().prompts_unread == 3


def test_records_that_did_not_count_what_is_unknown_say_nothing():
    null = WHOLE | {"unknown": None, "unread": None}
    accounting = counted(row(image(REUSED, WHOLE), image(REUSED, null), image(REUSED)))
    assert (accounting.prompts_unread, accounting.rows_unread, accounting.unread_by) == (0, [], [])


def test_one_row_more_than_is_shown_is_noted():
    accounting = counted(*(row(image(GENERATED, unread("T5", 1.0)), number=number) for number in range(9)))
    assert (accounting.prompts_unread, accounting.rows_unread) == (9, list(range(ROWS_SHOWN + 1)))
