"""The flow and its command line."""
