"""The pages of the site: those of `docs/`, README and its like, and pages that are made from the code."""

import shutil
from pathlib import Path

from docsite.configuration import configuration_page
from docsite.links import in_repository, is_elsewhere, with_links
from docsite.messages import messages_page
from docsite.presets import presets_page

# File of the repository -> page of the site.
OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
# Every page but the first, in the order of the navigation; Sphinx refuses one that is missing here.
NAVIGATION = {
    "Before a run": ("datasets", "models", "presets", "options", "configuration", "Your own function <prepare>"),
    "Running": ("speed", "caching", "scale", "deploy", "troubles", "messages"),
    "Results": ("output", "gallery", "scores", "exports"),
    "The project": ("architecture", "contributing", "unmeasured", "changelog"),
}


def write_pages(root: Path, folder: Path) -> None:
    """Write every page of the repository at `root`, and the pictures, into a new folder.

    Raises:
        FileNotFoundError: for a link to a file that is not in the repository.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in (root / "docs").iterdir():
        if file.suffix == ".md":
            _write(folder / file.name, _for_site(root, f"docs/{file.name}"))
        else:
            shutil.copy(file, folder)
    for source, page in OUTSIDE.items():
        _write(folder / page, _for_site(root, source) + (_contents() if page == "index.md" else ""))
    _write(folder / "configuration.md", configuration_page())
    _write(folder / "presets.md", presets_page())
    _write(folder / "messages.md", messages_page(root))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _for_site(root: Path, source: str) -> str:
    """Return a Markdown file with links to pages of the site. A link to a file that is no page becomes its text."""

    def to_page(whole: str, text: str, target: str) -> str:
        if is_elsewhere(target):
            return whole
        path, anchor = in_repository(source, target)
        if not (root / path).exists():
            raise FileNotFoundError(f"{source} links to {target}, which does not exist")
        page = OUTSIDE.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        return whole.replace(f"({target})", f"({page}{f'#{anchor}' * bool(anchor)})") if page else text

    return with_links((root / source).read_text(encoding="utf-8"), to_page)


def _contents() -> str:
    """Return the navigation, in the words of Sphinx."""
    parts = []
    for caption, pages in NAVIGATION.items():
        parts.append("\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""]))
    return "".join(parts)
