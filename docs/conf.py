"""Sphinx's configuration. The site needs no network: not to be built, and not to be read."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

from flash import __version__

project = "flash-multilabel"
release = version = __version__
author = copyright = "the flash-multilabel contributors"  # noqa: A001  (Sphinx's name)

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "reference_from_code"]
exclude_patterns = ["_extensions"]
root_doc = "index"
suppress_warnings = ["misc.highlighting_failure"]  # Pygments does not know all of nginx's grammar

html_theme = "furo"
html_title = "flash: multi-label text classification"
html_extra_path = ["llms.txt"]
html_copy_source = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
default_role = "code"  # docstrings name code in single backticks
python_maximum_signature_line_length = 88
