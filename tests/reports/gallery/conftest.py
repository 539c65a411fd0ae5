"""A finished output made without a flow, and what its gallery's scripts hold."""

import json
from pathlib import Path

import pytest

from t2i_core.config import Config
from t2i_core.output.finished import read_finished
from t2i_core.output.identity import OutputIdentity, claim_output
from t2i_core.output.layout import RUN
from t2i_core.output.manifest import write_manifest
from t2i_core.reports.gallery.write import write_gallery
from tests.builders import make_catalog, store_image


@pytest.fixture
def finish(workspace):
    """Store pictures and write the files of a run: `finish(spec, (spec, pixels), failed={spec: "NaN"})`.

    Each spec is a row of the data set. Return the finished output.
    """

    def make(*pictures, failed=(), facts=None, **options):
        specs = []
        for item in pictures:
            spec, pixels = item if isinstance(item, tuple) else (item, None)
            store_image(workspace, spec, pixels, **(facts or {}))
            specs.append(spec)
        errors = {spec.key: error for spec, error in dict(failed).items()}
        catalog = make_catalog(workspace, *specs, *dict(failed), run="r1", errors=errors)
        claim_output(workspace, OutputIdentity("p.jsonl", "0" * 64))
        config = Config.from_values({"dataset": "p.jsonl", "output": str(workspace.root), **options})
        write_manifest(catalog, config)
        summary = {
            "run": "r1",
            "state": "finished",
            "data_set": catalog.plan.to_summary() | {"name": "p.jsonl"},
            "model": {"name": "demo", "about": "a <small> model"},
            "accounting": {"rows": len(specs)},
            "configuration": options,
        }
        (workspace.root / RUN).write_text(json.dumps(summary))
        return read_finished(workspace)

    return make


@pytest.fixture
def write():
    """Write the gallery of a finished output: `write(finished, most=10)` -> (what was written, how many were told)."""

    def call(finished, most=None):
        told = []
        written = write_gallery(finished, most, on_start=lambda total: told.append(-total), on_images=told.append)
        assert sum(told) == 0, "as many images are done as were announced"
        return written

    return call


def script(path):
    """Return (function, arguments) of a script of the gallery."""
    function, _, rest = Path(path).read_text("utf-8").removeprefix("gallery.").partition("(")
    return function, json.loads(f"[{rest.rstrip().removesuffix(')')}]")


def unpacked(column, count):
    """Return the values of a packed column."""
    if isinstance(column, list):
        return column
    if "codes" in column:
        return [None if code < 0 else column["values"][code] for code in column["codes"]]
    return [column["same"]] * count


@pytest.fixture
def columns(workspace):
    """Read the columns of all images back: `columns("data")["prompt"]`, `columns("details")["key"]`."""

    def read(kind):
        found = {}
        for path in (workspace.root / "gallery" / kind).glob("*.js"):
            _, (start, *count, values) = script(path)
            size = count[0] if count else max(len(v) for v in values.values() if isinstance(v, list))
            found[start] = {name: unpacked(value, size) for name, value in values.items()}
        return {name: [value for start in sorted(found) for value in found[start][name]] for name in found[min(found)]}

    return read


@pytest.fixture
def page(workspace):
    """Read the page back."""
    return lambda: (workspace.root / "gallery/index.html").read_text("utf-8")
