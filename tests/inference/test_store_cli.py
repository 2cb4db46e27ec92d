"""psymech fit --store and psymech resume: the same command goes on after a stop."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import psymech as psm
from psymech.cli import app
from psymech.inference.chains import ChainDraws
from psymech.inference.store import Store

OPTIONS = ["--store", "--json"]


class Stop(BaseException):
    """In place of a process that dies."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    data = psm.load_example("process_study")
    data.sessions.to_csv(tmp_path / "sessions.csv", index=False)
    path = tmp_path / "fit.toml"
    path.write_text(
        '[data]\nfile = "sessions.csv"\n[model]\nkind = "growth"\noutcome = "phq9"\n'
        "[sampling]\ndraws = 150\ntune = 200\nchains = 2\nseed = 4\ncores = 1\n"
        '[output]\nfit = "fit.nc"\n'
    )
    return path


def stop_at_first_commit(config: Path) -> None:
    keep = Store.keep

    def dies(self: Store, chain: int, draws: ChainDraws, *, last: bool) -> None:
        keep(self, chain, draws, last=last)
        raise Stop

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Store, "keep", dies)
        CliRunner().invoke(app, ["fit", str(config), *OPTIONS], catch_exceptions=False)


def test_the_same_command_goes_on_and_other_options_are_refused(config: Path):
    stop_at_first_commit(config)
    refused = CliRunner().invoke(app, ["fit", str(config), *OPTIONS, "--draws", "99"])
    assert refused.exit_code == 1
    assert "begun with draws=150, now 99" in json.loads(refused.stdout)["message"]
    done = CliRunner().invoke(app, ["fit", str(config), *OPTIONS])
    assert done.exit_code in (0, 3), done.output
    assert json.loads(done.stdout)["fit"].endswith("fit.nc")
    tree = psm.load(config.with_name("fit.nc"))
    assert dict(tree["posterior"].sizes)["draw"] == 150
    again = CliRunner().invoke(app, ["fit", str(config), *OPTIONS])
    assert json.loads(again.stdout)["reused"] is True


def test_resume_finishes_the_fit(config: Path):
    stop_at_first_commit(config)
    done = CliRunner().invoke(app, ["resume", str(config.with_name("fit.nc")), "--json"])
    assert done.exit_code in (0, 3), done.output
    assert psm.load(config.with_name("fit.nc"))["posterior"].sizes["chain"] == 2
    absent = CliRunner().invoke(app, ["resume", str(config.with_name("none.nc")), "--json"])
    assert absent.exit_code == 1 and json.loads(absent.stdout)["error"] == "DataError"
