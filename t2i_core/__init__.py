"""Turn a data set of prompts into images and a manifest: everything that does not need Prefect."""

__version__ = "0.1.0"
