"""SHA-256 of values, as canonical JSON, and of files."""

import hashlib
import json
import re
from pathlib import Path

SHA256 = re.compile(r"[0-9a-f]{64}")


def digest(value: object) -> str:
    """Return the SHA-256 of `value` as canonical JSON (sorted keys, no spaces, ASCII), in 64 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def derive_seed(*parts: object) -> int:
    """Return 32 bits of the digest of `parts`: the same on every machine and in every version."""
    return int(digest(list(parts))[:8], 16)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    # A hub cache names each blob by its ETag, which for a file in LFS is the SHA-256 of its content, checked on upload;
    # so 24 GB need not be read. Other blobs have names of 40 digits. Only the link itself is followed, for a blob may
    # link to a store shared by several caches, which goes by other hashes.
    if path.is_symlink():
        blob = path.readlink()
        if blob.parent.name == "blobs" and SHA256.fullmatch(blob.name):
            return blob.name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
