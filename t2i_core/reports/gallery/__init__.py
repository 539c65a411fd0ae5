"""The gallery: pages that show the images of an output in a browser, and the report on them."""
