"""The pages' examples run and print what the pages say; the names and links that the pages use exist."""

import re
from pathlib import Path

import pytest

import psymech as psm

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / f for f in ("ARCHITECTURE.md", "CHANGELOG.md")),
]
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FITS = ("README.md", "tree.md", "estimands.md")


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def parameters() -> list:
    # A page that imports nothing shows fragments, which cannot run by themselves.
    with_code = [
        page for page in PAGES if any("import psymech" in code for kind, code in blocks(page) if kind == "python")
    ]
    marks = {True: [pytest.mark.sampling], False: []}
    return [pytest.param(page, id=page.name, marks=marks[page.name in FITS]) for page in with_code]


@pytest.mark.parametrize("page", parameters())
@pytest.mark.filterwarnings("ignore::psymech.SamplingWarning")  # short runs
@pytest.mark.filterwarnings("ignore::psymech.DesignWarning")  # the shipped study has a patient with one lagged session
def test_examples_print_what_the_page_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    printed = ""
    for kind, text in blocks(page):
        if kind == "python":
            exec(compile(text, page.name, "exec"), namespace)
            printed = capsys.readouterr().out
        else:
            assert [line.rstrip() for line in printed.splitlines()] == [line.rstrip() for line in text.splitlines()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_and_links_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    used = set(re.findall(r"\bpsm\.([A-Za-z_]\w*)", text))
    assert used <= set(psm.__all__), used - set(psm.__all__)
    links = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    assert [link for link in links if link and not (page.parent / link).exists()] == []
