"""Sphinx settings of the documentation; ``nox -s docs`` builds it."""

import sys
from pathlib import Path

from ndb_protocol import __version__

HERE = Path(__file__).parent
# Extensions are found by their names; what they share with tests, from the top.
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

project = "NDB"
author = "the NDB contributors"
copyright = "the NDB contributors"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "ndb_reference",
    "ndb_requirements",
    "ndb_rooms",
]
exclude_patterns = ["_build", "_ext", "examples"]
# In docstrings, `name` is code.
default_role = "literal"

myst_enable_extensions = ["deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"NDB {release}"
