"""Files that come with the package: the example data set, the demo model, and a font."""

from pathlib import Path

_DATA = Path(__file__).parent / "data"

COMPARISON_TEMPLATES = _DATA / "comparison"
EXAMPLE_FILE = _DATA / "example.jsonl"
DEMO_MODEL = _DATA / "demo_model"
CAPTION_FONT = _DATA / "fonts" / "NotoSans-Regular.ttf"
GALLERY_TEMPLATES = _DATA / "gallery"
