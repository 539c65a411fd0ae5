"""What a file system may lack, and what is promised without it: said once, for it is no reason to end a run.

Shares of other systems, FUSE and object-store mounts lack one or the other; the images are as good as on any disk.
"""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

# What is lacking -> what is promised no more.
PROMISES = {
    "fchmod": "stored images are not protected from being written by mistake",
    "flock": "runs do not wait for each other: let one run at a time use an output",
    "fsync": "a power cut may leave torn files, which the next run finds and makes again",
    "hard links": "images under their names are copies, and take their room twice",
    "utime": "names that are copies have times of their own",
}
# How it is said that a call is not known, or not for this file. EPERM is what FAT says to fchmod and to link.
_LACKING = {
    "fchmod": {errno.EPERM, errno.EACCES, errno.EINVAL},
    "flock": {errno.ENOLCK, errno.EINVAL, errno.EPERM},
    "fsync": {errno.EINVAL, errno.EBADF},
    "hard links": {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EINVAL},
    "utime": {errno.EPERM, errno.EACCES, errno.EINVAL},
}
_UNKNOWN = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY}
_said: set[str] = set()


def is_lacking(what: str, error: OSError) -> bool:
    """Return whether an error says that the file system lacks something; then say what is promised no more, once."""
    if error.errno not in _UNKNOWN | _LACKING[what]:
        return False
    if what not in _said:
        _said.add(what)
        log.warning("disk      the file system has no %s (%s): %s", what, error.strerror, PROMISES[what])
    return True


@contextmanager
def unless_lacking(what: str) -> Iterator[None]:
    """Go on after the block if the file system lacks what it calls.

    Raises:
        OSError: any other error of the block.
    """
    try:
        yield
    except OSError as error:
        if not is_lacking(what, error):
            raise
