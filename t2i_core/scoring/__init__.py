"""Scores of finished images: what scorers look like, those that need no weights, and which images still lack scores."""
