"""Models without torch: identity and files of a model, its preset and sampling settings, and LoRA files."""
