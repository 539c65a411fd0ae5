"""Tests of the gallery in a browser: `make browser-test`."""
