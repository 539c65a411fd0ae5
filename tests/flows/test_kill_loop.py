"""Ten seconds of the kill loop, which `make soak` runs for five minutes; and it sees what it looks for."""

import json

import pytest

from tests.kill_loop import KillLoop, kill_loop

pytestmark = pytest.mark.timeout(600)


def test_kills_and_edits_break_nothing(server, tmp_path):
    tally = kill_loop(tmp_path, seconds=10, seed=8)
    assert tally.violations == []
    assert tally.paths


def test_a_manifest_that_names_wrong_pictures_is_seen(run, output, tmp_path):
    loop = KillLoop(tmp_path, seed=1)
    loop.rows[:2] = [{"conversations": [{"role": "user", "content": text}]} for text in ("a fox", "a cat")]
    loop.write()
    run(dataset=str(loop.dataset))
    loop.check()
    assert loop.tally.violations == []
    manifest = output.folder / "manifest.jsonl"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    rows[0]["images"], rows[1]["images"] = rows[1]["images"], ["gone.png"]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loop.check()
    assert [text[:18] for text in loop.tally.violations] == ["the manifest names"] * 2
