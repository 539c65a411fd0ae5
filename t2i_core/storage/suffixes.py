"""The formats of stored images, and the suffix of each. Where a key has several files, the first of these counts."""

PNG = "png"
SUFFIXES = {PNG: ".png", "webp": ".webp", "jpeg": ".jpg"}
