"""Write the pages of the site: `python -m docsite FOLDER`. `make docs` lets Sphinx build them."""

import sys
from pathlib import Path

from docsite.pages import write_pages

write_pages(Path(__file__).resolve().parents[1], Path(sys.argv[1]))
