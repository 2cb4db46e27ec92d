"""The pages' examples run and print what the pages say; names, links and headings that pages refer to exist."""

import importlib
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import psymech as psm

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / f for f in ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")),
]
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
FITS = ("README.md", "privacy.md", "tree.md", "estimands.md", "checks.md", "sampling.md")
RUN_ELSEWHERE = ("api.md",)  # its fits are those of the docstrings' examples, made by conftest.py


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def parameters() -> list:
    # A page that imports nothing shows fragments, which cannot run by themselves.
    with_code = [
        page
        for page in PAGES
        if page.name not in RUN_ELSEWHERE
        and any("import psymech" in code for kind, code in blocks(page) if kind == "python")
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


def anchors(page: Path) -> set[str]:
    """Headings as GitHub and MyST name them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_and_links_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    used = set(re.findall(r"\bpsm\.([A-Za-z_]\w*)", text))
    assert used <= set(psm.__all__), used - set(psm.__all__)
    links = [target.partition("#") for target in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", text))]
    local = [(page.parent / link if link else page, anchor) for link, _, anchor in links if "://" not in link]
    assert [str(path) for path, _ in local if not path.exists()] == []
    assert [(path.name, anchor) for path, anchor in local if anchor and anchor not in anchors(path)] == []


def test_the_commands_of_the_readme_exist():
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    commands = re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert commands == ["demo", "test"]
    for command in commands:
        done = subprocess.run(["make", "-n", command], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        scripts = re.findall(r"\S+/\S+\.py\b", done.stdout)
        assert all((ROOT / script).is_file() for script in scripts if not script.startswith(("/", "."))), scripts


def test_the_index_leads_to_every_page_and_example():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    found = {(ROOT / "docs" / target).resolve() for target in re.findall(r"\]\(([^)\s#]+)", index)}
    wanted = {*(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.py")} - {ROOT / "docs" / "index.md"}
    assert sorted(path.name for path in wanted - found) == []


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Module docs/make_site.py."""
    pytest.importorskip("jupytext", reason="the extra docs is not installed")
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("make_site")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's packages at import
def test_notebooks_are_in_step_with_their_scripts(maker: ModuleType):
    notebooks = maker.make_notebooks
    import nbformat

    assert {path.stem for path in notebooks.COMMITTED.glob("*.ipynb")} == {path.stem for path in notebooks.scripts()}
    for script in notebooks.scripts():
        committed = nbformat.read(notebooks.COMMITTED / f"{script.stem}.ipynb", as_version=4)
        cells = [(cell.cell_type, cell.source) for cell in committed.cells]
        assert cells == [(cell.cell_type, cell.source) for cell in notebooks.as_notebook(script).cells], script.name
        code = [cell for cell in committed.cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in code), f"{script.name}: not executed; run make notebooks"
        assert not [out for cell in code for out in cell.outputs if out.output_type == "error"], script.name


def test_every_example_has_a_title_and_ends_in_words():
    for script in sorted((ROOT / "examples").glob("*.py")):
        text = script.read_text(encoding="utf-8")
        assert re.search(r"^# %% \[markdown\]\n# # \S", text, re.MULTILINE), f"{script.name}: no title"
        assert "textwrap.fill(" in text, f"{script.name}: says nothing in words"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_public_name_has_its_topic_in_the_reference(maker: ModuleType):
    assert {name: home for name, home in psm._HOME.items() if maker.topic_of(home) == "Other"} == {}


def test_every_public_function_shows_an_example():
    functions = {name: value for name in psm.__all__ if inspect.isfunction(value := getattr(psm, name))}
    assert [name for name, value in functions.items() if ">>> " not in (inspect.getdoc(value) or "")] == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_pages_that_would_fetch_are_found(maker: ModuleType):
    local = '<link rel="stylesheet" href="_static/x.css"><a href="https://doi.org/10">x</a><script src="x.js"></script>'
    assert maker.fetched(local) == []
    for page in (
        '<script defer src="https://host/x.js"></script>',
        '<link rel="stylesheet" href="//host/x.css">',
        '<img alt="" src="https://host/x.png">',
        "@import 'https://host/x.css'; a { background: url(x.png) }",
        "@font-face { src: url(https://host/font.woff2) }",
    ):
        assert len(maker.fetched(page)) == 1, page


@pytest.mark.slow
def test_the_site_builds_without_a_warning():
    pytest.importorskip("myst_nb", reason="the extra docs is not installed")
    command = [sys.executable, str(ROOT / "docs" / "make_site.py"), "--committed"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for page in ("index.html", "guides.html", "api/fit.html", "tutorials/demo.html"):
        assert (ROOT / "build" / "docs" / "html" / page).is_file()
