"""Parts share the work by keys alone: each image falls to one part, whatever the other parts do."""

import numpy as np
import pyarrow as pa
import pytest

from t2i_core.planning.parts import Counts, Part, count_parts, parts_of
from t2i_core.planning.pending import Pending
from t2i_core.storage.workspace import Workspace
from tests.builders import failed_record, image_spec, make_catalog, store_image

SPECS = [image_spec(number) for number in range(40)]


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def keys_of(catalog, part):
    return [request.key for request in Pending(catalog, part=part).requests()]


@pytest.mark.parametrize("total", [1, 2, 3, 7, 64])
def test_every_image_falls_to_exactly_one_part_in_data_set_order(workspace, total):
    catalog = make_catalog(workspace, *SPECS)
    parts = [keys_of(catalog, Part(number, total)) for number in range(1, total + 1)]
    assert sorted(key for part in parts for key in part) == sorted(spec.key for spec in SPECS)
    order = [spec.key for spec in SPECS]
    assert all(part == sorted(part, key=order.index) for part in parts)


def test_parts_are_about_equally_large():
    keys = pa.array([image_spec(number).key for number in range(8000)])
    sizes = np.bincount(parts_of(keys, 8))[1:]
    assert sizes.sum() == 8000
    assert (abs(sizes - 1000) < 150).all()  # five standard deviations of chance


def test_a_part_does_not_move_when_others_have_made_theirs(workspace):
    before = keys_of(make_catalog(workspace, *SPECS), Part(2, 3))
    for key in keys_of(make_catalog(workspace, *SPECS), Part(1, 3)):
        store_image(workspace, next(spec for spec in SPECS if spec.key == key))
    assert keys_of(make_catalog(workspace, *SPECS), Part(2, 3)) == before
    assert keys_of(make_catalog(workspace, *SPECS), Part(1, 3)) == []


def test_the_number_of_parts_may_change_between_runs(workspace):
    for key in keys_of(make_catalog(workspace, *SPECS), Part(1, 2)):
        store_image(workspace, next(spec for spec in SPECS if spec.key == key))
    catalog = make_catalog(workspace, *SPECS)
    rest = [key for number in range(1, 6) for key in keys_of(catalog, Part(number, 5))]
    assert sorted(rest) == sorted(keys_of(catalog, None))
    assert 0 < len(rest) < len(SPECS)


def test_what_is_made_failed_and_missing_is_counted_by_part(workspace):
    for spec in SPECS[:10]:
        store_image(workspace, spec)
    catalog = make_catalog(workspace, *SPECS, records=[failed_record(spec) for spec in SPECS[10:13]])
    counts = count_parts(catalog, 4)
    assert [sum(getattr(part, name) for part in counts) for name in ("made", "failed", "missing")] == [10, 3, 27]
    own = [Part(number, 4).has_key(SPECS[10].key) for number in range(1, 5)]
    assert own.count(True) == 1
    assert counts[own.index(True)].failed >= 1
    assert count_parts(catalog, 1) == [Counts(10, 3, 27)]


def test_a_part_is_written_as_it_is_read():
    assert str(Part.parse("3/64")) == "3/64"
