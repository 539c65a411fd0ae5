"""Files whose content was looked at, known by what changes with every change of a file.

Size and modification time tell nothing of a content: copies, archives and sync tools set them. The inode tells that a
file took the place of another, and the change time that it was written in place, for no program sets that. On a file
system that keeps no change time of its own (FAT, many network and object-store mounts) it is the modification time, and
such a file is looked at each time. What nobody sees without decoding all pixels is a byte that the disk itself changed.
"""

import os
import stat
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t2i_core.storage.files import atomic_write, read_regular
from t2i_core.storage.image_store import ImageStore, Scan
from t2i_core.storage.keys import KEY, find

Mask = npt.NDArray[np.bool_]
Marks = npt.NDArray[np.uint64]

# A file may change once more within a tick of the clock that gives its change time: of the system, or of a file system
# that counts in whole seconds.
_TICK_NS, _SLOW_TICK_NS = 20_000_000, 2_000_000_000
_SECOND_NS = 1_000_000_000
# So many images, spread over all, tell whether names of all were removed.
_SPREAD = 100


class CheckedFiles:
    """A set of files as they were when they were looked at, kept in a file: eight bytes for each.

    It decides nothing but what is looked at again: where it is lost, everything is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _marks(self) -> Marks:
        try:
            content = read_regular(self._path)
        except OSError:
            content = b""
        return np.frombuffer(content[: len(content) // 8 * 8], np.dtype("<u8")).astype(np.uint64)

    def know(self, marks: Marks) -> Mask:
        """Mark the files that were looked at and have not changed since."""
        known = np.zeros(len(marks), bool)
        order = np.argsort(marks)  # a look-up in order takes a tenth of the time
        known[order] = find(marks[order], self._marks) >= 0
        return known

    def keep(self, marks: Marks) -> None:
        """Replace the set by these files, on disk, too, if it is another one and can be written."""
        marks = np.sort(marks)
        if np.array_equal(marks, self._marks):
            return
        self._marks = marks
        with suppress(OSError), atomic_write(self._path) as file:  # without it, files are looked at again
            file.write(marks.astype("<u8").tobytes())


def marks_of(scan: Scan) -> Marks:
    """Return a mark for each stored image, equal only while its file is unchanged.

    Of a key its first 16 digits count, of which no two images have the same.
    """
    keys = scan.keys.view(np.uint64).reshape(-1, KEY.itemsize // 8).T
    return mixed([keys[0], keys[1], scan.inodes, scan.sizes, scan.mtimes_ns, scan.ctimes_ns])


def mixed(columns: Sequence[npt.NDArray[Any]]) -> Marks:
    """Return 64 bits for each row of some columns of 64-bit numbers."""
    result = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        result ^= column.astype(np.uint64)
        # The finalizer of SplitMix64, which spreads each bit over all (Steele, Lea and Flood, 2014).
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            result ^= result >> np.uint64(shift)
            result *= np.uint64(factor)
        result ^= result >> np.uint64(31)
        result += np.uint64(0x9E3779B97F4A7C15)
    return result


def shows_changes(mtimes_ns: npt.NDArray[np.int64], ctimes_ns: npt.NDArray[np.int64]) -> Mask:
    """Mark the files of which any later change would show in their change time."""
    if os.name == "nt":  # there it is the time when the file was made
        return np.zeros(len(ctimes_ns), bool)
    tick = np.where(ctimes_ns % _SECOND_NS == 0, _SLOW_TICK_NS, _TICK_NS)
    lasting: Mask = (ctimes_ns != mtimes_ns) & (ctimes_ns < time.time_ns() - tick)
    return lasting


class CheckedImages:
    """The stored images of an output of which somebody looked whether they are what their keys and records say."""

    def __init__(self, path: Path, images: ImageStore) -> None:
        self._files, self._images = CheckedFiles(path), images

    def marked(self, scan: Scan) -> Scan:
        """Return the scan with a mark at the images that nobody looked at since they changed."""
        return replace(scan, unchecked=~self._files.know(marks_of(scan)))

    def note(self, scan: Scan, right: Mask) -> Scan:
        """Note that these images of a scan are what they should be; what was known of all others is forgotten.

        Returns:
            The scan, with a mark at the others.
        """
        ctimes_ns = scan.ctimes_ns.copy()
        same = np.flatnonzero(right & (ctimes_ns == scan.mtimes_ns))
        paths = (self._images.path(scan.keys[i].decode()) for i in same)
        ctimes_ns[same] = own_change_times(paths, scan.mtimes_ns[same])
        scan = replace(scan, ctimes_ns=ctimes_ns)
        self._files.keep(marks_of(scan)[right & shows_changes(scan.mtimes_ns, scan.ctimes_ns)])
        return replace(scan, unchecked=~right)

    def touched(self, scan: Scan) -> bool:
        """Return whether images were changed since the scan, such as by the removal of their names."""
        for i in np.unique(np.linspace(0, len(scan.keys) - 1, min(_SPREAD, len(scan.keys))).astype(int)).tolist():
            with suppress(FileNotFoundError):
                if self._images.path(scan.keys[i].decode()).stat().st_ctime_ns != scan.ctimes_ns[i]:
                    return True
        return False

    def carry_over(self, before: Scan, after: Scan) -> None:
        """Keep what was known `before` names were linked and removed, which changes the change times alone."""
        index = find(after.keys, before.keys)
        same = index >= 0
        for now, then in (
            (after.inodes, before.inodes),
            (after.sizes, before.sizes),
            (after.mtimes_ns, before.mtimes_ns),
            (np.zeros(len(after.keys), bool), before.unchecked),
        ):
            same[same] &= now[same] == then[index[same]]
        time.sleep(2 * _TICK_NS / _SECOND_NS)  # the last links were made just now; see `shows_changes`
        self.note(after, same)


def own_change_times(paths: Iterable[Path], mtimes_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Give files whose change time is their modification time one of their own; return the change times then.

    They were written and not touched since, as `cp` leaves them; or the file system keeps no change times, which the
    first file shows: then the others are left as they are.
    """
    ctimes_ns = mtimes_ns.copy()
    for number, path in enumerate(paths):
        try:
            path.chmod(stat.S_IMODE(path.stat().st_mode))  # changes nothing but the change time
            ctimes_ns[number] = path.stat().st_ctime_ns
        except OSError:  # another user's file
            break
        if ctimes_ns[number] == mtimes_ns[number]:
            break
    if len(ctimes_ns):
        time.sleep(2 * _TICK_NS / _SECOND_NS)  # see `shows_changes`
    return ctimes_ns
