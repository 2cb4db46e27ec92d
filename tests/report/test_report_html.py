"""The report: what it contains, what it withholds, that it loads nothing, and that no text becomes markup."""

import csv
import json
import re
import time
from html.parser import HTMLParser
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import psymech as psm
from psymech import names
from psymech.errors import DataError
from psymech.posterior import tree as read
from psymech.reporting import words
from psymech.reporting.gate import make_gate
from psymech.reporting.tables import shown
from tests.posterior.fitted_trees import make_tree
from tests.posterior.test_model_checks import exact_tree

MAX_BYTES = 3_000_000  # what mail servers take without a question
MAX_SECONDS = 60.0  # of this process; the goal is 20 s on a quiet machine
TAGS = {
    "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "ul", "li", "strong", "b", "span",
    "div", "sub", "sup", "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "img", "details",
    "summary", "dl", "dt", "dd",
}  # fmt: skip
ATTRIBUTES = {"lang", "charset", "http-equiv", "content", "name", "class", "scope", "src", "alt"}

VECTORS = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg/onload=alert(1)>", "javascript:alert(1)",
    "<iframe src='http://x.invalid'></iframe>", "<a href='http://x.invalid'>x</a>", "<style>*{display:none}</style>",
    "<!--", "-->", "]]>", "</title><script>alert(1)</script>", "</style><script>alert(1)</script>", "{{ 7*7 }}",
    "{% raw %}", "${7*7}", "$x^{", "&lt;b&gt;", "<base href='http://x.invalid'>", "<meta http-equiv=refresh content=0>",
    "%3Cscript%3E",
]  # fmt: skip
FRAMES = ["{}", "'{}", '"{}', '">{}', "'>{}", "a{}b", "\u202e{}", "\x00{}", " {} ", "é{}"]
PAYLOADS = [frame.replace("{}", vector) for vector, frame in product(VECTORS, FRAMES)]


class Page(HTMLParser):
    """Collects tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.comments: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def made() -> xr.DataTree:
    whole = exact_tree(n_therapists=12)
    rng = np.random.default_rng(1)
    groups = {node.path: node.to_dataset(inherit=False) for node in whole.subtree}
    draws = groups["/posterior"]
    moving = {name: draws[name] * (1 + 0.01 * rng.standard_normal(draws[name].shape)) for name in ("beta", "sigma")}
    tree = xr.DataTree.from_dict(groups | {"/posterior": draws.assign(moving)})
    tree.attrs = dict(whole.attrs)
    return tree


@pytest.fixture(scope="module")
def page(made: xr.DataTree, tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = tmp_path_factory.mktemp("report") / "report.html"
    start = time.process_time()
    assert psm.report(made, path, withhold=False, tables=path.parent / "tables") == path
    assert time.process_time() - start < MAX_SECONDS
    assert path.stat().st_size < MAX_BYTES
    parsed = Page(path.read_text(encoding="utf-8"))
    parsed.folder = path.parent  # type: ignore[attr-defined]
    return parsed


def test_the_page_has_every_part(page: Page) -> None:
    for heading in ("Data", "Model", "Checks", "Effects", "Single therapists", "Limits", "For a methods section"):
        assert heading in page.words
    assert "12 therapists" in page.words and "How it was made" in page.words
    assert sum(tag == "img" and name == "src" for tag, name, _ in page.attributes) >= 6


def test_the_page_loads_nothing(page: Page) -> None:
    assert page.tags <= TAGS
    assert {name for _, name, _ in page.attributes} <= ATTRIBUTES
    sources = [value for _, name, value in page.attributes if name == "src"]
    assert all(value.startswith("data:image/png;base64,") for value in sources)
    policy = next(value for _, _, value in page.attributes if "default-src" in value)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "http" not in page.words


def test_the_page_names_nobody(made: xr.DataTree, page: Page) -> None:
    folder: Path = page.folder  # type: ignore[attr-defined]
    everything = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file())
    everything = re.sub(r"base64,[\w+/=]+", "", everything)  # any four letters occur in an image
    ids = [
        *made["posterior"].dataset["patient"].values.tolist(),
        *made["posterior"].dataset["therapist"].values.tolist(),
    ]
    assert [each for each in ids if each in everything] == []


def test_tables_hold_the_estimates(made: xr.DataTree, page: Page) -> None:
    folder: Path = page.folder  # type: ignore[attr-defined]
    with (folder / "tables" / "effects.csv").open(newline="", encoding="utf-8") as stream:
        rows = {row["term"]: row for row in csv.DictReader(stream)}
    assert float(rows["time"]["mean"]) == pytest.approx(psm.effects(made).loc["time", "mean"], rel=1e-12)
    latex = (folder / "tables" / "tables.tex").read_text(encoding="utf-8")
    assert latex.count("\\begin{tabular}") == latex.count("\\end{tabular}") >= 5


def test_two_hundred_payloads_stay_text(tmp_path: Path) -> None:
    assert len(set(PAYLOADS)) == 200
    tree = make_tree(n_therapists=200, patients_each=2, sessions_each=3, draws=25, chains=2, therapist_ids=PAYLOADS)
    tree.attrs[names.ATTR_NOTES] = json.dumps(PAYLOADS)
    path = psm.report(
        tree, tmp_path / "r.html", anonymize=False, withhold=False, title=PAYLOADS[0], question=PAYLOADS[11]
    )
    parsed = Page(path.read_text(encoding="utf-8"))
    assert parsed.tags <= TAGS and parsed.comments == []
    assert {name for _, name, _ in parsed.attributes} <= ATTRIBUTES
    assert all(value.startswith("data:image/png") for _, name, value in parsed.attributes if name == "src")
    for vector in VECTORS:
        assert vector in parsed.words  # shown as it is, neither run nor dropped
    assert "\u202e" not in parsed.words and "\x00" not in parsed.words


@pytest.mark.parametrize("vector", ["<script>alert(1)</script>", "$x^{", "{{ 7*7 }}"])
def test_names_of_columns_stay_text(vector: str, tmp_path: Path) -> None:
    tree = make_tree(draws=25, chains=2)
    label = tree.attrs[names.ATTR_SPEC].replace("phq9", vector)
    tree.attrs[names.ATTR_SPEC] = label
    path = psm.report(tree, tmp_path / "r.html", withhold=False)
    parsed = Page(path.read_text(encoding="utf-8"))
    assert parsed.tags <= TAGS and vector in parsed.words


def test_numbers_of_failed_draws_are_withheld(tmp_path: Path) -> None:
    tree = make_tree(draws=40)  # too few to judge
    text = Page(psm.report(tree, tmp_path / "r.html", tables=tmp_path / "t").read_text(encoding="utf-8")).words
    assert "Withheld" in text and "fewer than 100" in text
    mean = shown(float(tree["posterior"].dataset["beta"].sel(term="alliance.within").mean()))
    assert mean not in text
    assert (tmp_path / "t" / "effects.csv").read_text(encoding="utf-8").startswith("withheld")
    doubtful = Page(psm.report(tree, tmp_path / "r.html", withhold=False).read_text(encoding="utf-8")).words
    assert "Doubtful" in doubtful and mean in doubtful


def test_a_failed_check_of_the_model_closes_what_it_concerns_only() -> None:
    gate = make_gate(exact_tree(noise="ar0.5"))
    assert gate.model is not None and [check.name for check in gate.model.failed] == ["residual autocorrelation"]
    assert all("autocorrelation" not in reason for reason in gate.reasons["therapists"])
    assert any("residual='ar1'" in reason for reason in gate.reasons["effects"])
    assert len(gate.reasons["effects"]) == len(gate.reasons["therapists"]) + 1


def test_a_fit_saved_without_its_data_gives_a_report_that_says_so(tmp_path: Path) -> None:
    path = psm.save(make_tree(draws=150), tmp_path / "fit.nc", data=False)
    text = Page(psm.report(psm.load(path), tmp_path / "r.html").read_text(encoding="utf-8")).words
    assert "saved without them" in text and "alliance.within" in text


def test_a_binary_outcome_and_two_levels_have_a_report(tmp_path: Path) -> None:
    for tree in (make_tree(family="bernoulli", draws=100), make_tree(levels=("patient",), draws=100)):
        assert "logit P" in (text := psm.report(tree, tmp_path / "r.html", withhold=False).read_text("utf-8")) or (
            "Effects of single therapists" not in text
        )


def test_the_report_needs_its_folder_and_leaves_no_half_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        psm.report(make_tree(), tmp_path / "no" / "r.html")
    assert list(tmp_path.iterdir()) == []


def test_words_state_estimands_and_limits(made: xr.DataTree) -> None:
    by_label = {info.label: words.estimand(info, made) for info in read.terms_of(made)}
    assert "Same patient" in by_label["alliance.within"] and "Same therapist" in by_label["alliance.patient"]
    gate = make_gate(made)
    limits = " ".join(words.limits(made, gate))
    assert "12 therapists: the prior decides" in limits and "Missing outcomes" in limits
    text = words.methods(made, gate, "89%")
    assert "12 therapists" in text and f"psymech {psm.__version__}" in text


@pytest.mark.parametrize(
    ("value", "text"), [(0.123456, "0.123"), (1234.5, "1234"), (0.0, "0"), (np.nan, ""), (3, "3"), (True, "yes")]
)
def test_cells_are_rounded(value: object, text: str) -> None:
    assert shown(value) == text
