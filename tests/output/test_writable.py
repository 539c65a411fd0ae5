"""An output that cannot be written is refused at the start; for an ordinary user: tests/flows/test_preflight.py."""

import pytest

from t2i_core.errors import OutputError
from t2i_core.output import writable
from t2i_core.output.writable import check_output
from t2i_core.storage.workspace import Workspace


def test_a_new_output_and_one_of_an_earlier_run_are_left_as_they_are(tmp_path):
    check_output(tmp_path / "new" / "out")
    assert list(tmp_path.iterdir()) == []
    workspace = Workspace(tmp_path / "out")
    workspace.results.mkdir(parents=True)
    (workspace.hidden / "output.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    check_output(workspace.root)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_another_run_is_about_to_rename_is_not_looked_at(tmp_path, monkeypatch):
    workspace, looked = Workspace(tmp_path), []
    (workspace.hidden / ".written.7-7.tmp").mkdir(parents=True)
    workspace.results.mkdir()
    monkeypatch.setattr(writable, "check_writable", looked.append)
    check_output(tmp_path)
    assert looked == [tmp_path, workspace.hidden, workspace.results]


def test_a_file_or_a_broken_link_in_place_of_the_hidden_folder_is_refused(tmp_path):
    hidden = Workspace(tmp_path).hidden
    hidden.write_text("")
    with pytest.raises(OutputError, match=rf"^output: {hidden} is a file; name a folder$"):
        check_output(tmp_path)
    hidden.unlink()
    hidden.symlink_to("nowhere")
    with pytest.raises(OutputError, match=rf"^output: {hidden} is a link to nowhere, which does not exist"):
        check_output(tmp_path)
