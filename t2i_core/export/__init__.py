"""Exports: the images of an output and what is known of them, in the form that a trainer reads."""
