"""The folder `gallery/`: scripts named by their content, and `index.html`, which is written last.

Until `index.html` is replaced, the folder is the earlier gallery; what that alone used is removed afterwards. A script
whose content is there already is not written again.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from t2i_core.output.own_files import check_folder, claim_folder
from t2i_core.storage.files import atomic_write, entries, is_temporary, remove_if_stale, write_text
from t2i_core.storage.thumbnail_store import SUFFIX, ThumbnailStore

PAGE = "index.html"
REPORT = "report.json"


class GalleryFolder:
    """The gallery of one output while it is written: which files it uses, and how many of them are new."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.page = folder / PAGE
        self.written = 0
        self._used: dict[str, set[str]] = {"data": set(), "details": set(), "thumbnails": set()}

    def check(self) -> None:
        """Refuse a folder that this tool did not write, before any work.

        Raises:
            OutputError: naming it.
        """
        check_folder(self.folder, "move it away, or leave the gallery out with --gallery never")

    def claim(self) -> None:
        """Make the folder, and mark it as this tool's.

        Raises:
            OutputError: as `check`.
        """
        self.check()
        claim_folder(self.folder)

    def state(self) -> list[int] | None:
        """Return size and modification time of the page; None where there is none."""
        try:
            status = self.page.stat()
        except OSError:
            return None
        return [status.st_size, status.st_mtime_ns]

    def thumbnails(self) -> set[str]:
        """Return the names of the chunks of thumbnails that the gallery on disk shows."""
        return {entry.name.removesuffix(SUFFIX) for entry in entries(self.folder / "thumbnails")}

    def write_script(self, kind: str, function: str, *arguments: Any) -> str:
        """Write a script that calls `gallery.<function>` with `arguments`; return its name in the folder `kind`."""
        values = ",".join(json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in arguments)
        data = f"gallery.{function}({values})\n".encode()
        name = hashlib.sha256(data).hexdigest()[:16]
        path = self._use(kind, name)
        if not path.exists():
            with atomic_write(path) as file:
                file.write(data)
            self.written += 1
        return name

    def link_thumbnails(self, store: ThumbnailStore, chunk: str) -> None:
        """Have a chunk of thumbnails in the folder, too."""
        path = self._use("thumbnails", chunk)
        if not path.exists():
            store.link(chunk, path)
            self.written += 1

    def finish(self, page: str) -> None:
        """Write the page, and remove the scripts that it does not use."""
        write_text(self.page, page)
        for kind, used in self._used.items():
            for entry in entries(self.folder / kind):
                if is_temporary(entry.name):
                    remove_if_stale(Path(entry.path))
                elif entry.name.endswith(SUFFIX) and entry.name.removesuffix(SUFFIX) not in used:
                    Path(entry.path).unlink(missing_ok=True)

    def _use(self, kind: str, name: str) -> Path:
        self._used[kind].add(name)
        return self.folder / kind / (name + SUFFIX)
