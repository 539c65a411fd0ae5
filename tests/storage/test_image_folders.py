"""Looking for stored images: the same here and in a process of its own."""

import hashlib
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from t2i_core.errors import OutputError
from t2i_core.storage import image_folders
from t2i_core.storage.image_folders import image_files

KEYS = sorted(hashlib.sha256(str(number).encode()).hexdigest() for number in range(60))


@pytest.fixture
def folder(tmp_path):
    for number, key in enumerate(KEYS):
        place = tmp_path / "images" / key[:2] / key[2:4]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{key}.{('png', 'webp', 'jpg')[number % 3]}").write_bytes(b"x" * number)
    return tmp_path / "images"


@pytest.fixture
def elsewhere(monkeypatch):
    """Look in other processes, however few images there are; returns those processes."""
    monkeypatch.setattr(image_folders, "MANY", 0)
    started, popen = [], subprocess.Popen

    def noted(*arguments, **named):
        started.append(popen(*arguments, **named))
        return started[-1]

    monkeypatch.setattr(image_folders.subprocess, "Popen", noted)
    return started


def columns(found):
    return [bytes(found.keys), found.sizes, found.mtimes_ns, found.inodes, found.ctimes_ns]


def test_other_processes_find_the_same(folder, elsewhere, monkeypatch):
    found = image_files(folder)
    assert len(elsewhere) == image_folders.PROCESSES
    monkeypatch.setattr(image_folders, "MANY", 10_000)
    here = image_files(folder)
    assert len(elsewhere) == image_folders.PROCESSES
    assert columns(found) == columns(here)
    assert bytes(found.keys).decode() == "".join(KEYS)
    assert list(found.sizes) == list(range(60))


def test_only_the_share_of_a_process_that_died_is_looked_for_here(folder, elsewhere, monkeypatch, caplog):
    dying = f"import os, sys\nif sys.argv[2].endswith('/{KEYS[0][:2]}'): os.kill(os.getpid(), 9)\n"
    monkeypatch.setattr(image_folders, "_ANSWER", dying + image_folders._ANSWER)
    here, scan = [], image_folders._scan
    monkeypatch.setattr(image_folders, "_scan", lambda folders: here.extend(folders) or scan(folders))
    assert bytes(image_files(folder).keys).decode() == "".join(KEYS)
    assert str(folder / KEYS[0][:2]) in here
    assert str(folder / KEYS[-1][:2]) not in here


def test_it_is_found_wherever_the_run_was_started(folder, elsewhere, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert len(image_files(folder.relative_to(tmp_path)).sizes) == 60
    assert len(elsewhere) == image_folders.PROCESSES


@pytest.mark.parametrize("limit", [0, 10_000])
def test_of_two_files_of_a_key_the_first_format_counts(folder, monkeypatch, limit):
    monkeypatch.setattr(image_folders, "MANY", limit)
    place = folder / KEYS[0][:2] / KEYS[0][2:4]
    (place / f"{KEYS[0]}.jpg").write_bytes(b"of a run that was killed")
    (place / f"{KEYS[0]}.webp").write_bytes(b"of another one")
    found = image_files(folder)
    assert list(found.sizes) == list(range(60))
    assert found.inodes[0] == (place / f"{KEYS[0]}.png").stat().st_ino


@pytest.mark.parametrize("limit", [0, 10_000])
def test_a_link_in_the_place_of_a_folder_is_refused(folder, monkeypatch, limit, tmp_path):
    monkeypatch.setattr(image_folders, "MANY", limit)
    (folder / KEYS[-1][:2] / "zz").symlink_to(tmp_path)
    with pytest.raises(OutputError, match="is a link, which this tool never makes"):
        image_files(folder)


@pytest.mark.parametrize("limit", [0, 10_000])
def test_what_is_not_in_its_place_is_no_image(folder, monkeypatch, limit):
    monkeypatch.setattr(image_folders, "MANY", limit)
    before = columns(image_files(folder))
    shutil.copytree(folder / KEYS[0][:2], folder / f"{KEYS[0][:2]} 2")  # as tools that synchronise make them
    shutil.copytree(folder / KEYS[1][:2] / KEYS[1][2:4], folder / KEYS[1][:2] / f"{KEYS[1][2:4]}.bak")
    shutil.copy(next((folder / KEYS[2][:2]).glob("*/*")), folder / KEYS[9][:2] / KEYS[9][2:4])
    assert columns(image_files(folder)) == before


def test_an_image_that_is_deleted_in_this_moment_is_left_out(folder, monkeypatch):
    class Gone:
        """A directory entry whose file is deleted before anybody looks at it."""

        def __init__(self, entry):
            self.name, self.path, self._entry = entry.name, entry.path, entry

        def is_symlink(self):
            return False

        def is_file(self, *, follow_symlinks):
            return True

        def stat(self, *, follow_symlinks):
            if self.name.startswith(KEYS[4]):
                raise FileNotFoundError(2, "No such file or directory", self.path)
            return self._entry.stat(follow_symlinks=follow_symlinks)

    real = image_folders.entries
    monkeypatch.setattr(image_folders, "entries", lambda place: [Gone(entry) for entry in real(place)])
    found = image_files(folder)
    assert bytes(found.keys).decode() == "".join(key for key in KEYS if key != KEYS[4])
    assert list(found.sizes) == [number for number in range(60) if number != 4]


def test_an_error_of_the_system_comes_with_its_file(folder, elsewhere, monkeypatch):
    breaking = "import os\ndef scandir(folder): raise PermissionError(13, 'Permission denied', str(folder))\n"
    monkeypatch.setattr(image_folders, "_ANSWER", f"{breaking}os.scandir = scandir\n{image_folders._ANSWER}")
    with pytest.raises(PermissionError) as caught:
        image_files(folder)
    assert Path(caught.value.filename).parent == folder


def test_what_only_another_process_lacks_is_no_error(folder, elsewhere, monkeypatch, caplog):
    breaking = 'import os\ndef scandir(folder): raise RuntimeError("can\'t start new thread")\n'
    monkeypatch.setattr(image_folders, "_ANSWER", f"{breaking}os.scandir = scandir\n{image_folders._ANSWER}")
    assert len(image_files(folder).sizes) == 60
    assert "4 processes that look for them gave no answer" in caplog.text


def test_an_error_of_one_process_ends_all(folder, elsewhere, monkeypatch):
    program = f"if sys.argv[2].endswith('/{KEYS[0][:2]}'): {image_folders._ANSWER}\nimport time; time.sleep(600)"
    breaking = "import os, sys\ndef scandir(folder): raise PermissionError(13, 'Permission denied', str(folder))\n"
    monkeypatch.setattr(image_folders, "_ANSWER", f"{breaking}os.scandir = scandir\n{program}")
    with pytest.raises(PermissionError):
        image_files(folder)
    assert [process.returncode is not None for process in elsewhere] == [True] * 4


@pytest.mark.parametrize(
    "program", ["import os; os.kill(os.getpid(), 9)", "print('cnumpy')", "import sys; sys.exit('no memory')"]
)
def test_a_process_that_gives_no_answer_is_done_without(folder, elsewhere, monkeypatch, caplog, capfd, program):
    monkeypatch.setattr(image_folders, "_ANSWER", program)
    assert len(image_files(folder).sizes) == 60
    assert caplog.messages == ["images    4 processes that look for them gave no answer; this one looked"]
    assert "no memory" not in capfd.readouterr().err


@pytest.mark.parametrize("python", ["", None, "/no/such/python"])
def test_where_no_process_can_be_started_images_are_looked_for_here(folder, elsewhere, monkeypatch, python):
    monkeypatch.setattr(image_folders.sys, "executable", python)
    assert len(image_files(folder).sizes) == 60


def test_modules_of_the_user_are_not_those_of_python(folder, elsewhere, monkeypatch, tmp_path, caplog):
    (tmp_path / "queue.py").write_text("raise SystemExit('a module of the user')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert len(image_files(folder).sizes) == 60
    assert caplog.text == ""


def test_ctrl_c_ends_it(folder, elsewhere, monkeypatch):
    monkeypatch.setattr(image_folders, "_ANSWER", "import time; time.sleep(600)")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def press():
        while len(elsewhere) < image_folders.PROCESSES:
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            image_files(folder)
    finally:
        signal.signal(signal.SIGINT, before)
    assert [process.returncode for process in elsewhere] == [-signal.SIGKILL] * image_folders.PROCESSES
