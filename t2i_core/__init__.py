"""Text to image over a data set: everything that does not need Prefect."""
