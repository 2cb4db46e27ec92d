"""Build the documentation's site, without fetching anything. Run: python docs/make_site.py [--committed].

Examples whose script or package has changed are run first; with --committed the notebooks are taken as they are.

The pages are plain Markdown with links between files, so that they read well where they lie. Here they are put together
in one folder: links are turned to the site's pages, each section of docs/index.md becomes a page whose links are its
table of contents, and every public name gets a page of its own. Sphinx does the rest and lets no warning pass.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import make_notebooks

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
BUILD = ROOT / "build" / "docs"
SOURCE, NOTEBOOKS, HTML = BUILD / "source", BUILD / "notebooks", BUILD / "html"
SECTIONS = {"Tutorials": "tutorials", "How-to guides": "guides", "Explanation": "explanation", "Reference": "reference"}
ROOT_PAGES = {"README.md": "readme", "ARCHITECTURE.md": "architecture", "CONTRIBUTING.md": "contributing"}
ROOT_PAGES |= {"CHANGELOG.md": "changelog"}
LINK = re.compile(r"(!?\[[^\]]*\])\(([^)\s#]*)(#[^)\s]*)?\)")
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
# Where a public name is listed, by the module that holds it; the first that fits.
TOPICS: Mapping[str, tuple[str, ...]] = {
    "Data": ("data.sessions", "data.findings", "data.design_report", "data.examples", "data", "design"),
    "Models": ("models", "spec.model"),
    "Priors": ("spec.priors", "priors", "inference.predictive"),
    "Fitting": ("graph", "inference"),
    "Therapists": (
        "posterior.therapists",
        "posterior.ranks",
        "posterior.reliability",
        "posterior.exceedance",
        "posterior.caseload",
        "posterior.residuals",
    ),
    "Mediation": ("posterior.mediation",),
    "Several outcomes and shares": ("posterior.contrasts", "posterior.shares", "posterior.published"),
    "Predictions and change": ("posterior.predict", "posterior.change", "posterior.trajectories"),
    "Effects, variance, checks of the model": ("posterior",),
    "Figures and reports": ("plots", "reporting"),
    "Simulation": ("simulation", "simulate", "calibration"),
    "Errors and warnings": ("errors",),
    "Other": ("",),
}


def page_of(path: Path) -> str | None:
    """Return the site's page, without ending, of a file of the repository, or None where it has none."""
    if path.parent == DOCS and path.suffix == ".md":
        return path.stem
    if path.parent == ROOT and path.name in ROOT_PAGES:
        return ROOT_PAGES[path.name]
    if path.parent in (make_notebooks.EXAMPLES, make_notebooks.COMMITTED) and path.suffix in (".py", ".ipynb"):
        return f"tutorials/{path.stem}"
    return None


def stage_links(text: str, at: Path) -> str:
    """Turn a page's links into links between the site's pages; other files are copied beside the pages."""

    def turn(match: re.Match[str]) -> str:
        label, target, fragment = match[1], match[2], match[3] or ""
        if not target or "://" in target or target.startswith("mailto:"):
            return match[0]
        path = (at.parent / target).resolve()
        page = page_of(path)
        if page is not None:
            ending = ".ipynb" if page.startswith("tutorials/") else ".md"
            return f"{label}({page}{ending}{fragment})"
        if path.is_dir():
            return label.strip("[]")
        copy = SOURCE / "files" / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
        return f"{label}({copy.relative_to(SOURCE).as_posix()})"

    parts = FENCED.split(text)
    return "".join(part if FENCED.fullmatch(part) else LINK.sub(turn, part) for part in parts)


def pages_linked(text: str) -> dict[str, str]:
    """Return the pages that a staged text links to, in order, with the words of their first link."""
    found: dict[str, str] = {}
    for label, target, _ in LINK.findall(text):
        if target.endswith((".md", ".ipynb")):
            found.setdefault(target.rpartition(".")[0], label.strip("[]"))
    return found


def sections(index: str) -> dict[str, str]:
    """Return the index's sections, by heading."""
    parts = re.split(r"^## (.+)$", index, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def contents(pages: Iterable[str]) -> str:
    """Return a table of contents that only the navigation shows."""
    return "\n```{toctree}\n:hidden:\n\n" + "\n".join(pages) + "\n```\n"


def stage_pages() -> None:
    """Write every page, with its links turned and the sections' tables of contents."""
    for path in (*sorted(DOCS.glob("*.md")), *(ROOT / name for name in ROOT_PAGES)):
        page = page_of(path)
        text = stage_links(path.read_text(encoding="utf-8"), path)
        if page == "index":
            taken: set[str] = set()
            for heading, part in sections(text).items():
                pages = {linked: label for linked, label in pages_linked(part).items() if linked not in taken}
                taken.update(pages)
                section = SOURCE / f"{SECTIONS[heading]}.md"
                entries = (f"{label[:1].upper()}{label[1:]} <{linked}>" for linked, label in pages.items())
                section.write_text(f"# {heading}\n{part}{contents(entries)}", encoding="utf-8")
            text += contents(SECTIONS.values())
        elif page == "api":
            text += stage_names()
        (SOURCE / f"{page}.md").write_text(text, encoding="utf-8")


def topic_of(module: str) -> str:
    """Return the heading under which names of a module are listed."""
    for topic, homes in TOPICS.items():
        if any(not home or module == home or module.startswith((f"{home}.", f"{home}_")) for home in homes):
            return topic
    raise AssertionError("the last topic takes every module")


def stage_names() -> str:
    """Write a page for each public name, and return their list by topic."""
    import psymech

    listed: dict[str, list[str]] = {topic: [] for topic in TOPICS}
    for name in sorted(psymech._HOME, key=str.lower):
        listed[topic_of(psymech._HOME[name])].append(name)
    text = ""
    for topic, found in listed.items():
        if not found:
            continue
        text += f"\n## {topic}\n\n| name | |\n|---|---|\n"
        for name in found:
            value = getattr(psymech, name)
            summary = re.split(r"\n\s*\n", (value.__doc__ or "").strip())[0].replace("\n", " ")
            text += f"| [`{name}`](api/{name}.md) | {re.sub(r'[`|]', '', re.sub(r' +', ' ', summary))} |\n"
            page = f"# {name}\n\n```{{eval-rst}}\n.. currentmodule:: psymech\n"
            if isinstance(value, type):
                page += f".. autoclass:: psymech.{name}\n   :members:\n```\n"
            else:
                page += f".. autofunction:: psymech.{name}\n```\n"
            (SOURCE / "api" / f"{name}.md").write_text(page, encoding="utf-8")
    return text + contents(f"api/{name}" for found in listed.values() for name in found)


def fetched(page: str) -> list[str]:
    """Return what a browser would fetch from another host to show a page."""
    of_tags = re.findall(r"<(?:script|img|iframe|source|video|audio)\b[^>]*?\bsrc=[\"']((?:https?:)?//[^\"']+)", page)
    of_links = [
        tag
        for tag in re.findall(r"<link\b[^>]*>", page)
        if re.search(r"href=[\"'](?:https?:)?//", tag) and not re.search(r"rel=[\"'](?:canonical|author)", tag)
    ]
    return [*of_tags, *of_links, *re.findall(r"(?:@import|url\()\s*[\"']?((?:https?:)?//[^\"')]+)", page)]


def check_offline() -> None:
    """Stop where a built page or style sheet would fetch anything from another host."""
    found = {
        path.relative_to(HTML).as_posix(): hosts
        for path in HTML.rglob("*")
        if path.suffix in (".html", ".css") and (hosts := fetched(path.read_text(encoding="utf-8")))
    }
    if found:
        raise SystemExit(f"pages that would fetch from other hosts: {found}")


def main(*, committed: bool = False) -> None:
    """Build the site into build/docs/html; with `committed`, from the notebooks as they were committed."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    for folder in (SOURCE / "api", SOURCE / "tutorials"):
        folder.mkdir(parents=True)
    if not committed:
        make_notebooks.main(NOTEBOOKS)
    for path in sorted((make_notebooks.COMMITTED if committed else NOTEBOOKS).glob("*.ipynb")):
        shutil.copy(path, SOURCE / "tutorials")
    stage_pages()
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-c", str(DOCS)]
    command += ["-d", str(BUILD / "doctrees"), str(SOURCE), str(HTML)]
    done = subprocess.run(command, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)})
    if done.returncode:
        raise SystemExit(done.returncode)
    check_offline()
    print(f"{HTML / 'index.html'} opens in any browser, without a network.")


if __name__ == "__main__":
    main(committed="--committed" in sys.argv)
