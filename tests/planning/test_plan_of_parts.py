"""Parts that start together plan one data set at the same time: none disturbs another."""

import pytest

from t2i_core.dataset.rows import Rejection
from t2i_core.errors import DatasetError
from t2i_core.planning.plan import Plan
from tests.planning.conftest import row


def test_a_plan_that_another_part_has_written_meanwhile_is_left_as_it_is(write, folder):
    def files():
        return {path.name: path.stat().st_ino for path in folder.rglob("*.parquet")}

    write(*[row(i, f"p{i}") for i in range(5)])
    before = files()
    write(*[row(i, f"p{i}") for i in range(5)])
    assert files() == before != {}


def test_an_input_without_a_usable_row_is_the_same_error_for_two_parts_that_read_it_at_once(write, folder, monkeypatch):
    files = Plan.files
    monkeypatch.setattr(Plan, "files", lambda plan, folder: [*files(plan, folder), folder / "removed by the other"])
    with pytest.raises(DatasetError, match="no usable row among 1"):
        write(row(0, rejection=Rejection(0, 1, "row", "", "is bad")))
