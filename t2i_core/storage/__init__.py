"""What an output folder keeps: files, images by key, PNG bytes, image records, tables."""
