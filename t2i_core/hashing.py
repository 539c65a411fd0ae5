"""SHA-256 of values, as canonical JSON, and of files."""

import hashlib
import json
import re
from pathlib import Path

# Made once: json.dumps would make one for every value.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)

SHA256 = re.compile(r"[0-9a-f]{64}")


def digest(value: object) -> str:
    """Return the SHA-256 of `value` as canonical JSON (sorted keys, no spaces, ASCII), in 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()


def canonical_json(value: object) -> str:
    """Return `value` as JSON with sorted keys, without spaces, in ASCII; refuse NaN and the infinities."""
    return _CANONICAL.encode(value)


def derive_seed(*parts: object) -> int:
    """Return 32 bits of the digest of `parts`, a list: the same on every machine and in every version."""
    # As the encoder writes a list, in half of its time: seeds are as many as images.
    texts = [str(part) if type(part) is int else canonical_json(part) for part in parts]
    return int(hashlib.sha256(f"[{','.join(texts)}]".encode("ascii")).hexdigest()[:8], 16)


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
