"""The benchmarks' own arithmetic: agreement of draws, slopes, and a page that says what was not measured."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))  # the benchmarks are scripts, not a package

from agreement import agreement, distance_in_sds  # noqa: E402
from harness import described, key  # noqa: E402
from rivals import cases as rival_cases  # noqa: E402
from samplers import cases as sampler_cases  # noqa: E402
from scaling import cases as scaling_cases  # noqa: E402

SAME = {"beta[a]": (1.0, 0.5, 0.01), "sd_patient[a]": (2.0, 0.2, 0.004)}


def test_equal_posteriors_agree_and_a_shifted_mean_does_not() -> None:
    near = {"beta[a]": (1.02, 0.51, 0.01), "sd_patient[a]": (2.0, 0.2, 0.004)}
    assert agreement(SAME, near).agrees
    far = near | {"beta[a]": (1.1, 0.5, 0.01)}  # seven Monte Carlo errors
    found = agreement(SAME, far)
    assert not found.agrees
    assert found.worst == pytest.approx(0.1 / np.hypot(0.01, 0.01))


def test_a_posterior_that_is_too_narrow_does_not_agree_unless_its_draws_are_too_few_to_tell() -> None:
    assert not agreement(SAME, SAME | {"beta[a]": (1.0, 0.3, 0.006)}).agrees  # 2,500 effective draws
    assert agreement(SAME, SAME | {"beta[a]": (1.0, 0.3, 0.15)}).agrees  # 4 effective draws


def test_other_figures_are_refused() -> None:
    with pytest.raises(ValueError, match="different figures"):
        agreement(SAME, {"beta[a]": (1.0, 0.5, 0.01)})


def test_distance_of_a_point_estimate_is_in_posterior_sds_of_fixed_effects() -> None:
    assert distance_in_sds(SAME, {"beta[a]": 1.25, "sd_patient[a]": 9.0}) == pytest.approx(0.5)


@pytest.mark.parametrize("make", [rival_cases, sampler_cases, scaling_cases])
@pytest.mark.parametrize("quick", [True, False])
def test_cases_differ_in_what_makes_them_the_same(make, quick: bool) -> None:
    made = list(make(quick, 1))
    assert len({key(case) for case in made}) == len(made)
    assert all(described(case) for case in made)


def page(folder: Path, name: str, cases: list[dict[str, object]]) -> str:
    result = {"date": "2026-01-01", "machine": {"cpu": "c", "cores": 2, "system": "s"}, "versions": {}, "cases": cases}
    (folder / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")
    command = [sys.executable, str(ROOT / "benchmarks" / "table.py"), "--results", str(folder), "--out", "-"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_page_says_what_was_not_measured_and_states_slopes(tmp_path: Path) -> None:
    gradients = [
        {
            "case": {"case": "gradient", "series": "therapists", "therapists": n, "patients": 9000, "sessions": 12},
            "figures": {"gradient_seconds": 1e-6 * n**0.5, "rows": 108000},
        }
        for n in (10, 100, 1000)
    ]
    text = page(tmp_path, "scaling", gradients)
    assert "Slope of the logarithms: 0.50 over all, 0.50 over the last two." in text
    case = next(iter(sampler_cases(False, 1)))
    cases = [
        {"case": case, "figures": {"not_measured": "not finished in 9 s"}},
        {"case": case | {"device": "gpu"}, "figures": {"not_measured": "not reached in the time of the run"}},
    ]
    text = page(tmp_path, "samplers", cases)
    assert "| collapsed, nutpie | not finished in 9 s |" in text
    assert "On a GPU: not measured, for want of one." in text
