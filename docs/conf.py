"""How Sphinx builds these pages: no network, no JavaScript for mathematics, every warning an error.

.venv/bin/sphinx-build -W --keep-going -q -b html docs docs/_build
"""

from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.errors import SphinxError

import simtrust

project = "simtrust"
author = "The simtrust developers"
copyright = author
release = version = simtrust.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
# In a docstring `name` is a name of ours where there is one, and else only code.
default_role = "py:obj"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
# Shapes are in the types: one parameter a line, with its type.
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
maximum_signature_line_length = 70
python_display_short_literal_types = True
autodoc_preserve_defaults = True
autodoc_use_type_comments = False
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries = False

html_theme = "furo"
html_title = f"simtrust {release}"
html_static_path = ["_static"]
html_css_files = ["simtrust.css"]
html_copy_source = False
html_math_renderer = "mathml"


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(_mathml(node, block=False))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math-block">{_mathml(node, block=True)}</div>\n')
    raise nodes.SkipNode


def _mathml(node: nodes.Element, *, block: bool) -> str:
    """Docutils' own MathML, which browsers show without a script from elsewhere."""
    try:
        return tex2mathml(node.astext(), as_block=block)
    except Exception as error:
        raise SphinxError(f"{node.source}, line {node.line}: {node.astext()!r}: {error}") from error


def _tidy(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Before napoleon: drop what Python says of a named tuple's fields, and keep a field's own text whole."""
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()
    if lines and what in ("attribute", "property", "data"):
        # Napoleon takes what stands before a colon on the first line for a type.
        lines.insert(0, "")


def _name_arrays(app: Sphinx, document: nodes.document) -> None:
    """JAX calls its arrays by a module of its own, which jaxtyping repeats."""
    for text in list(document.findall(nodes.Text)):
        if "jaxlib._jax." in text:
            text.parent.replace(text, nodes.Text(text.replace("jaxlib._jax.", "")))


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _tidy, priority=400)
    app.connect("doctree-read", _name_arrays)
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))  # pyright: ignore[reportArgumentType]
