"""The command line: words, exit status and JSON of each command; configurations refused with the remedy."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import psymech as psm
from psymech.cli import app
from psymech.config import MODELS, example_config, read_config
from psymech.errors import SpecError
from tests.posterior.fitted_trees import make_tree

RUN = CliRunner()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "study.csv"
    done = RUN.invoke(app, ["simulate", str(path), "--therapists", "6", "--patients", "4", "--sessions", "6"])
    assert done.exit_code == 0, done.output
    return path


def config(folder: Path, text: str) -> Path:
    path = folder / "fit.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_help_teaches_and_version_is_printed() -> None:
    said = RUN.invoke(app, ["--help"]).output
    assert "psymech demo" in said and "check sessions.csv" in said
    assert psm.__version__ in RUN.invoke(app, ["--version"]).output
    for command in ("demo", "check", "fit", "report", "simulate"):
        done = RUN.invoke(app, [command, "--help"])
        assert done.exit_code == 0 and "--json" in done.output


def test_simulate_writes_table_and_truth(table: Path) -> None:
    frame = pd.read_csv(table)
    assert len(frame) == 6 * 4 * 6 and {"therapist", "patient", "session", "symptoms"} <= set(frame.columns)
    truth = json.loads(table.with_name("study_truth.json").read_text(encoding="utf-8"))
    assert {"beta", "sigma", "sd_therapist"} <= set(truth["data_vars"])


def test_check_passes_a_sound_table(table: Path) -> None:
    done = RUN.invoke(app, ["check", str(table)])
    assert done.exit_code == 0 and "6 therapists" in done.output
    found = json.loads(RUN.invoke(app, ["check", str(table), "--json"]).output)
    assert found["ok"] is True and found["findings"] == []


def test_check_refuses_with_status_one(table: Path, tmp_path: Path) -> None:
    few = tmp_path / "two.csv"
    frame = pd.read_csv(table)
    frame[frame["therapist"].isin(["T01", "T02"])].to_csv(few, index=False)
    done = RUN.invoke(app, ["check", str(few), "--json"])
    found = json.loads(done.output)
    assert done.exit_code == 1 and found["ok"] is False
    assert any(row["severity"] == "error" and "therapist" in row["message"] for row in found["findings"])
    done = RUN.invoke(app, ["check", str(tmp_path / "absent.csv")])
    assert done.exit_code == 1 and "absent.csv" in done.stderr
    done = RUN.invoke(app, ["check", str(table), "--patient", "pat", "--json"])
    assert done.exit_code == 1 and json.loads(done.output)["error"] == "DataError"


def test_the_example_configuration_is_valid(tmp_path: Path) -> None:
    example = RUN.invoke(app, ["fit", "--example"]).output
    assert example == example_config("process")
    read = read_config(config(tmp_path, re.sub(r"(?m)^# ", "", example)))
    assert read.spec.outcome == "phq9" and read.sampling == {"draws": 1000, "seed": 1}
    assert read.output["fit"] == tmp_path.resolve() / "fit.nc" and read.lower_is_better
    assert read.spec.priors == (("sd_therapist[Intercept]", psm.HalfNormal(2.0)),)


@pytest.mark.parametrize("kind", MODELS)
def test_the_example_of_each_kind_fits_the_shipped_study(kind: str, tmp_path: Path) -> None:
    study = psm.load_example("process_study")
    study.sessions.to_csv(tmp_path / "sessions.csv", index=False)
    study.units["patient"].assign(patient=study.ids["patient"]).to_csv(tmp_path / "patients.csv", index=False)
    path = config(tmp_path, RUN.invoke(app, ["fit", "--example", "--kind", kind]).output)
    read = read_config(path)
    assert read.lower_is_better is (kind != "outcomes")
    done = RUN.invoke(app, ["check", str(tmp_path / "sessions.csv"), "--config", str(path), "--json"])
    assert done.exit_code == 0, done.output


def test_an_unknown_kind_and_a_folder_that_cannot_be_made_are_told_in_words(tmp_path: Path) -> None:
    done = RUN.invoke(app, ["fit", "--example", "--kind", "outcome"])
    assert done.exit_code == 1 and "Did you mean 'outcomes'" in done.stderr
    (tmp_path / "file").write_text("", encoding="utf-8")
    done = RUN.invoke(app, ["demo", "--folder", str(tmp_path / "file" / "x"), "--json"])
    assert done.exit_code == 1 and json.loads(done.output)["ok"] is False
    done = RUN.invoke(app, ["chekc"])
    assert done.exit_code == 2 and "Did you mean 'check'" in done.output


MINIMAL = '[data]\nfile = "s.csv"\n[model]\nkind = "growth"\noutcome = "phq9"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[data\n", "is not TOML"),
        ("[model]\nkind='growth'\n", r"no section \[data\]"),
        ('[data]\nfile="s.csv"\n', r"no section \[model\]"),
        (MINIMAL.replace("growth", "grwth"), "Did you mean 'growth'"),
        (MINIMAL.replace("outcome", "outcom"), "Did you mean 'outcome'"),
        (MINIMAL.replace('outcome = "phq9"', ""), 'needs outcome, such as outcome = "phq9"'),
        (MINIMAL.replace("file", "flie"), "Did you mean 'file'"),
        (MINIMAL.replace('"s.csv"', "3"), r"\[data\] file: expected text in quotes, found 3"),
        (MINIMAL + '[sampling]\ndraws = "many"\n', "expected a whole number, found 'many'"),
        (MINIMAL + "[sampling]\ndraws = true\n", "expected a whole number, found True"),
        (MINIMAL + "[sampling]\ndraw = 5\n", "Did you mean 'draws'"),
        (MINIMAL + "[smapling]\ndraws = 5\n", "Did you mean 'sampling'"),
        (MINIMAL + "[priors]\nsd_therapist = 2\n", "expected a table such as"),
        (MINIMAL + '[priors]\nsd_therapist = { family = "HalfNormal" }\n', "HalfNormal lacks 'sd'"),
        (MINIMAL + '[priors]\nsd_therapist = { family = "Cauchy", sd = 1 }\n', "no prior family"),
        (MINIMAL + "[output]\nlower_is_better = 1\n", "expected true or false"),
        (MINIMAL + 'shape = "cubic"\n', "'linear', 'log'"),
    ],
)
def test_a_wrong_configuration_is_refused_in_words(text: str, words: str, tmp_path: Path) -> None:
    path = config(tmp_path, text)
    with pytest.raises(SpecError, match=words):
        read_config(path)
    done = RUN.invoke(app, ["fit", str(path)])
    assert done.exit_code == 1 and done.stderr.startswith("psymech: ")


def test_none_leaves_out_time_and_levels(tmp_path: Path) -> None:
    text = (
        '[data]\nfile = "s.csv"\ntherapist = "none"\n[model]\nkind = "process"\noutcome = "y"\n'
        'techniques = ["x"]\ntime = "none"\ndecompose = "none"\nslopes = { therapist = "none" }\n'
    )
    read = read_config(config(tmp_path, text))
    assert read.reading["therapist"] is None and read.spec.time is None and read.spec.decompose == "none"
    assert read.spec.without == ("therapist",)


def test_fit_without_a_configuration_is_a_usage_error() -> None:
    assert RUN.invoke(app, ["fit"]).exit_code == 2


def test_report_is_anonymised_unless_told(tmp_path: Path) -> None:
    fit = psm.save(make_tree(draws=150), tmp_path / "fit.nc")
    done = RUN.invoke(app, ["report", str(fit), "--json"])
    assert done.exit_code == 0, done.output
    page = Path(json.loads(done.output)["report"])
    assert page == fit.with_suffix(".html") and "Not anonymised" not in page.read_text(encoding="utf-8")
    assert RUN.invoke(app, ["report", str(fit), "--identified", "-o", str(tmp_path / "in.html")]).exit_code == 0
    assert "Not anonymised" in (tmp_path / "in.html").read_text(encoding="utf-8")
    done = RUN.invoke(app, ["report", str(fit), "--min-patients", "3"])
    assert done.exit_code == 1 and "fewer than 5" in done.stderr
    assert RUN.invoke(app, ["report", str(tmp_path / "no.nc")]).exit_code == 1


@pytest.mark.sampling
def test_fit_saves_reports_and_is_not_repeated(table: Path) -> None:
    path = config(
        table.parent,
        '[data]\nfile = "study.csv"\n[model]\nkind = "growth"\noutcome = "symptoms"\nrandom = { patient = [] }\n'
        "[sampling]\ndraws = 400\ntune = 400\nseed = 1\n"
        '[output]\nfit = "fit.nc"\nreport = "report.html"\ntables = "tables"\n',
    )
    first = RUN.invoke(app, ["fit", str(path), "--json"])
    assert first.exit_code == 0, first.output
    result = json.loads(first.stdout)
    assert result["verdict"] == "ok" and result["reused"] is False
    assert Path(result["report"]).is_file() and (table.parent / "tables" / "effects.csv").is_file()
    again = json.loads(RUN.invoke(app, ["fit", str(path), "--json"]).stdout)
    assert again["reused"] is True
    few = RUN.invoke(app, ["fit", str(path), "--draws", "20", "--json"])
    assert few.exit_code == 3 and json.loads(few.stdout)["verdict"] == "not assessable"
