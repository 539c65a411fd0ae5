"""From a shard to image records; the interface that an engine implements."""
