"""Files that come with the package: the example data set and the demo model."""

from pathlib import Path

_DATA = Path(__file__).parent / "data"

EXAMPLE_FILE = _DATA / "example.jsonl"
DEMO_MODEL = _DATA / "demo_model"
