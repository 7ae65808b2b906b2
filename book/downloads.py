"""A small Sphinx extension: what the buttons of a page open or download.

They offer the notebooks that are worked in (`editions.py`), not the book's
own, which show the solutions. The site keeps them under `_sources/book`, and a
workflow copies them from there to a branch of the repository, for Colab.
Binder makes its own when it starts.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import editions
import sync
from nbformat import NotebookNode

BRANCH = "notebooks"
LINK = re.compile(r"\]\(<?([\w.-]+)\.(?:ipynb|md)(#[^)>\s]*)?>?\)")


def lead_to_the_site(
    notebook: NotebookNode, site: str, repository: str
) -> None:
    """Let links between pages lead to the site, wherever the notebook is.

    Args:
        notebook: One to work in, or its solutions; changed in place.
        site: The address of the book.
        repository: That of the project, whose branch has the solutions.
    """

    def lead(link: re.Match[str]) -> str:
        page, anchor = link[1], link[2] or ""
        if page.startswith("solutions-"):
            return f"]({repository}/blob/{BRANCH}/{page}.ipynb)"
        return f"]({site}book/{page}.html{anchor})"

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(lead, cell.source)


def redirect(app: Any, *about: Any) -> None:
    """Let the buttons for Colab and Binder open these notebooks."""
    context = about[2]
    options = app.config.html_theme_options
    branch = options["repository_branch"]
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            url = button.get("url", "")
            if url.startswith(options["launch_buttons"]["colab_url"]):
                button["url"] = url.replace(f"/{branch}/book/", f"/{BRANCH}/")
            elif url.startswith(options["launch_buttons"]["binderhub_url"]):
                button["url"] = url.replace("/book/", "/notebooks/")


def finish(app: Any, error: Exception | None) -> None:
    """Write the notebooks that are downloaded."""
    if error is None and app.builder.name == "html":
        repository = app.config.html_theme_options["repository_url"]
        for name, notebook in editions.edition(with_solutions=True):
            lead_to_the_site(notebook, app.config.html_baseurl, repository)
            path = Path(app.outdir, "_sources", "book", f"{name}.ipynb")
            sync.store(notebook, path)


def setup(app: Any) -> dict[str, bool]:
    """Register all of this with Sphinx."""
    # The theme makes its buttons at 501.
    app.connect("html-page-context", redirect, priority=600)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
