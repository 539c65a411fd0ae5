"""Text to image over a data set: everything that does not need Prefect."""

__version__ = "0.1.0"
