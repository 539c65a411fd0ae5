"""Settings of Sphinx for `make docs`. The pages are those that `python -m docsite` writes."""

project = "text2image"
html_title = "text2image"
extensions = ["myst_parser"]
# Links to headings are checked, as GitHub names them.
myst_heading_anchors = 6
# Two hyphens are those of an option.
smartquotes = False
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
