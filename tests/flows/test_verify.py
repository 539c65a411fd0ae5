"""`--verify` finds every kind of fault that a normal run does not look for, and `--repair` makes it right."""

import errno
import json
import os

import pytest

from flows.command import ExitCode
from flows.outcomes import exit_code
from t2i_core.config import Config
from t2i_core.errors import ConfigError


def flip(path, place=-200):
    """Change a byte of a file behind its header, as a disk does: size and times stay."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(status.st_mode)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def verify(run, output, caplog):
    """Run with `--verify`; return the exit code and the lines about faults, without their reasons."""

    def call(**values):
        caplog.clear()
        state = run(verify=True, **values)
        lines = [record.getMessage() for record in caplog.records if record.name == "flows.verification"]
        return exit_code(state), lines

    return call


def test_what_a_run_leaves_is_right(run, output, prompts, verify):
    dataset = prompts("a fox", {"conversations": []}, "a cat")
    run(dataset=dataset)
    before = {path: path.stat().st_mtime_ns for path in output.folder.glob("*.*") if path.is_file()}
    code, lines = verify()
    assert (code, lines) == (ExitCode.OK, ["verified  2 stored images decoded: all is right"])
    after = {path: path.stat().st_mtime_ns for path in before}
    assert after == before
    run(dataset=prompts("a fox", "a cat"), replace=True)
    assert verify()[0] == ExitCode.OK


def test_every_fault_is_named_and_repaired(run, output, prompts, verify):
    dataset = prompts("a fox", "a cat", "a moon", "a boat", "a kite")
    run(dataset=dataset)
    pixels = output.pixels()
    manifest = (output.folder / "manifest.jsonl").read_bytes()
    named = sorted(output.folder.glob("sample*/*.png"))
    by_name = {path.parent.name: next(k for k, p in output.stored().items() if p.samefile(path)) for path in named}
    flip(output.stored()[by_name["sample0_condition0"]])
    output.stored()[by_name["sample1_condition0"]].unlink()
    named[2].unlink()
    os.link(named[3], named[2])  # stands for the wrong picture
    named[3].unlink()
    flip(output.folder / "manifest.jsonl", place=-5)
    code, lines = verify()
    assert code == ExitCode.DAMAGED
    faults = {line.split(":")[0] for line in lines[:-2]}
    assert faults == {
        f"damaged   .t2i/images/{(key := by_name['sample0_condition0'])[:2]}/{key[2:4]}/{key}.png",
        "files     sample1_condition0/sample1_condition0_0.png",
        "name      sample2_condition0/sample2_condition0_0.png",
        "name      sample3_condition0/sample3_condition0_0.png",
        "files     manifest.jsonl",
    }
    assert lines[-2] == "verified  4 stored images decoded: 1 damaged, 2 wrong names, 2 faults in files"
    assert verify(dataset=dataset, repair=True)[0] == ExitCode.OK
    assert output.pixels() == pixels
    assert (output.folder / "manifest.jsonl").read_bytes() == manifest
    assert verify()[0] == ExitCode.OK


def test_images_of_a_run_that_was_killed_are_looked_at(run, output, prompts, verify):
    run(dataset=prompts("a fox", "a cat"))
    (output.folder / "run.json").unlink()
    flip(next(iter(output.stored().values())))
    code, lines = verify()
    assert code == ExitCode.DAMAGED
    assert sum(line.startswith("damaged") for line in lines) == 1
    assert any("run.json" in line for line in lines)


def test_a_folder_without_images_is_wrong_use(verify):
    assert verify()[0] == ExitCode.WRONG_USE


@pytest.mark.parametrize(
    "values", [{"repair": True}, {"verify": True, "preview": 3}, {"verify": True, "dry_run": True}]
)
def test_verify_is_not_mixed_with_other_looks(values):
    with pytest.raises(ConfigError):
        Config.from_values(values)


def test_records_that_were_edited_are_named(run, output, prompts, verify):
    import pyarrow as pa
    import pyarrow.parquet as pq

    run(dataset=prompts("a fox", "a cat"))
    for path in (output.folder / ".t2i/records").glob("*.parquet"):
        table = pq.read_table(path)
        wrong = pa.array(["nobody"] * len(table), pa.string())
        pq.write_table(table.set_column(table.schema.get_field_index("run"), "run", wrong), path)
    code, lines = verify()
    assert code == ExitCode.DAMAGED
    assert sum(line.startswith("record") for line in lines) == 2
    dataset = prompts("a fox", "a cat")
    assert verify(dataset=dataset, repair=True)[0] == ExitCode.OK
    assert verify()[0] == ExitCode.OK
    assert len(json.loads((output.folder / "run.json").read_text())["run"]) > 10


def test_a_full_disk_is_no_fault_of_the_output(run, output, prompts, verify, monkeypatch):
    from t2i_core.output import verification

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", str(output.folder))

    run(dataset=prompts("a fox"))
    monkeypatch.setattr(verification, "_rows", full)
    code, lines = verify()
    assert code == ExitCode.WRONG_USE
    assert not [line for line in lines if "No space left" in line]
