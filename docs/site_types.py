"""A Sphinx extension: plain words in the types of docstrings, such as `table` or `shape`, are not links.

Sphinx would look for any attribute of that name in any class.
"""

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx


def _unlink(app: Sphinx, document: nodes.document) -> None:
    for reference in list(document.findall(pending_xref)):
        if reference.get("refdomain") == "py" and reference.get("refspecific") and reference["reftarget"].islower():
            reference.replace_self(reference.children)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the step."""
    app.connect("doctree-read", _unlink)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
