"""The folders of stored images as their directory entries have them: a million of them in seconds, beside other work.

Many images are looked for in processes of their own. Each look at a file lets go of Python's lock, and whoever holds it
next, such as the reader of a data set, keeps it for milliseconds: beside it a scan took ten times as long.
"""

import logging
import os
import pickle
import re
import subprocess
import sys
from array import array
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path

from t2i_core.errors import OutputError
from t2i_core.storage.files import entries, in_threads, is_temporary, remove_if_stale
from t2i_core.storage.suffixes import SUFFIXES

log = logging.getLogger(__name__)

# About so many images are worth the start of processes: 50 ms.
MANY = 10_000
# So many processes share them. More were no faster on two cores, neither on a local disk nor on a network file system.
PROCESSES = 4
_SUFFIXES = list(SUFFIXES.values())
_IMAGE = re.compile(rf"([0-9a-f]{{64}})({'|'.join(map(re.escape, _SUFFIXES))})")
# Behind what comes with Python, which a module of that name must not hide.
_ANSWER = "import sys; sys.path.append(sys.argv[1]); import t2i_core.storage.image_folders as it; it.answer()"


class ImageFiles:
    """What directory entries say of images, in columns of equal length, sorted by key.

    Attributes:
        keys: 64 ASCII characters each.
        sizes, mtimes_ns, inodes, ctimes_ns: integers of eight bytes.
    """

    def __init__(self, keys: Iterable[str] = (), states: Sequence[os.stat_result] = ()) -> None:
        self.keys = bytearray("".join(keys).encode("ascii"))
        self.sizes = array("q", [state.st_size for state in states])
        self.mtimes_ns = array("q", [state.st_mtime_ns for state in states])
        self.inodes = array("Q", [state.st_ino for state in states])
        self.ctimes_ns = array("q", [state.st_ctime_ns for state in states])

    def extend(self, others: "ImageFiles") -> None:
        """Append other images, whose keys come later."""
        self.keys += others.keys
        self.sizes += others.sizes
        self.mtimes_ns += others.mtimes_ns
        self.inodes += others.inodes
        self.ctimes_ns += others.ctimes_ns


def image_files(folder: Path) -> ImageFiles:
    """Return the images of a folder, each in the folder `ab/cd` that its key begins with; none if there is no folder.

    Temporary files that a killed process left behind are removed on the way, once they are an hour old.

    Raises:
        OutputError: for a link in the place of a folder, through which images would be written elsewhere.
        OSError: a folder cannot be read.
    """
    folders = _folders(folder)
    if folders and len(folders) * len(_folders(folders[-1])) > MANY:
        return _in_other_processes(folders)
    return _scan(folders)


def answer() -> None:
    """Write what a scan of the folders in the arguments of this process finds, or raises, to its standard output."""
    result: ImageFiles | Exception
    try:
        result = _scan(sys.argv[2:])
    except Exception as error:  # raised by the process that asked
        result = error
    with suppress(BrokenPipeError):  # it asks no more
        pickle.dump(result, sys.stdout.buffer, protocol=5)  # earlier ones copy the columns
        sys.stdout.flush()


def _in_other_processes(folders: Sequence[str]) -> ImageFiles:
    """Return the images in folders, which processes share; those of a process that gave no answer are looked for here.

    It cannot be started, or ended early: memory or threads may be short.
    """
    edges = [len(folders) * i // PROCESSES for i in range(PROCESSES + 1)]
    shares = [folders[start:end] for start, end in pairwise(edges)]
    found, unanswered = ImageFiles(), 0
    with ExitStack() as stack:
        processes = [_start(share, stack) for share in shares]
        # In key order, as the folders are.
        for share, process in zip(shares, processes, strict=True):
            part = _answer_of(process) if process else None
            unanswered += part is None
            found.extend(_scan(share) if part is None else part)
    if unanswered:
        log.warning("images    %d processes that look for them gave no answer; this one looked", unanswered)
    return found


def _start(folders: Sequence[str], stack: ExitStack) -> "subprocess.Popen[bytes] | None":
    """Start a process that scans folders, and ends with `stack`; return None if none can be started."""
    if not sys.executable:  # Python is part of another program
        return None
    # Only what comes with Python is imported there. In a session of its own it gets no Ctrl-C, which this process gets.
    command = [sys.executable, "-I", "-S", "-c", _ANSWER, str(Path(__file__).parents[2]), *folders]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return None
    stack.enter_context(process)
    stack.callback(process.kill)  # which has ended by then, or is asked no more
    return process


def _answer_of(process: "subprocess.Popen[bytes]") -> ImageFiles | None:
    """Return what a process found; None if it ended early, or had too little memory or too few threads.

    Raises:
        OutputError, OSError: that of the scan.
    """
    assert process.stdout is not None
    try:
        found = pickle.load(process.stdout)  # noqa: S301 - of this project's own code
    except MemoryError:
        raise
    except Exception:  # whatever pickle makes of half an answer
        return None
    if isinstance(found, OutputError | OSError):
        raise found
    return found if isinstance(found, ImageFiles) else None


def _scan(folders: Sequence[str]) -> ImageFiles:
    found = ImageFiles()
    # In key order: folders are named by the first digits of their keys.
    for part in in_threads(_scan_folder, folders):
        found.extend(part)
    return found


def _scan_folder(folder: str) -> ImageFiles:
    """Return the images in the folders within `folder`, each of them in its place."""
    images: dict[str, os.stat_result] = {}
    for inner in _folders(folder):
        for key, entry in _images(inner):
            with suppress(FileNotFoundError):  # a run that goes on has deleted it in this moment
                images[key] = entry.stat(follow_symlinks=False)
    return ImageFiles(images, list(images.values()))


def _images(folder: str) -> Iterable[tuple[str, os.DirEntry[str]]]:
    """Return the key and the file of each image in a folder `ab/cd`, in the order of keys.

    A copy of a folder, `ab/cd (2)` or `ab.bak/cd`, holds none: nobody would find an image by its key there.
    """
    place = "".join(Path(folder).parts[-2:])
    images: dict[str, os.DirEntry[str]] = {}
    for entry in entries(folder):
        if (named := _IMAGE.fullmatch(entry.name)) and entry.is_file(follow_symlinks=False):
            key = named[1]
            # Two files, where a run was killed that wrote another format: one counts.
            if key[:4] == place and (key not in images or _rank(entry) < _rank(images[key])):
                images[key] = entry
        elif is_temporary(entry.name):
            remove_if_stale(Path(entry.path))
    return images.items()


def _rank(entry: os.DirEntry[str]) -> int:
    return _SUFFIXES.index(Path(entry.name).suffix)


def _folders(parent: str | Path) -> list[str]:
    """Return the folders of images in another one, and whatever else is there."""
    found = entries(parent)
    for folder in found:
        if folder.is_symlink():
            raise OutputError(
                f"output: {folder.path} is a link, which this tool never makes; put the folder in its place"
            )
    return [folder.path for folder in found]
