"""From rows to image specs, and from what is missing to batches and shards."""
