"""What must happen to densities and priors when the table is changed in a way whose effect is known."""

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import psymech as psm
from psymech.design import Design, make_design
from psymech.gaussian.loglik import log_likelihood
from psymech.graph.crossing import make_crossing
from psymech.priors import ChosenPriors, choose_priors
from psymech.spec.priors import HalfNormal, HalfStudentT, Normal, Prior
from tests.graph.explicit_designs import ragged_study

TOLERANCE = 1e-9  # relative to 1 + |log p|: rounding of sums of some hundred terms, with room
A, B = 7.0, 2.5
SPEC = psm.process(
    "y",
    techniques=["x"],
    covariates=["w"],
    slopes={"patient": ["time"], "therapist": ["x"], "clinic": []},
)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return ragged_study(np.random.default_rng(21), 3)


def built(frame: pd.DataFrame, **keywords: object) -> tuple[Design, ChosenPriors]:
    data = psm.SessionData.from_frame(
        frame,
        clinic="clinic",
        ranges={"y": None, "x": None, "w": None},
        **keywords,  # pyright: ignore[reportArgumentType]
    )
    design = make_design(SPEC, data)
    return design, choose_priors(SPEC, design)


def likelihood(design: Design, priors: ChosenPriors, *, beta: NDArray, sd: dict[str, NDArray], sigma: float) -> float:
    """Log likelihood of the exact engine; the random terms of a level correlate by 0.3."""
    crossing = make_crossing(design, priors)
    value = crossing.residual.evaluate(np.array([sigma]))
    roots = []
    for level in design.levels:
        q = len(level.terms)
        corr = 0.7 * np.eye(q) + 0.3
        roots.append(sd[level.level][:, None] * np.linalg.cholesky(corr))
    return log_likelihood(crossing.cross, value.coefs, roots, value.log_det, beta=beta)


def point(design: Design) -> tuple[NDArray, dict[str, NDArray], float]:
    rng = np.random.default_rng(5)
    beta = rng.normal(size=len(design.terms))
    return beta, {level.level: rng.uniform(0.3, 1.2, size=len(level.terms)) for level in design.levels}, 1.3


def close(found: float, expected: float) -> bool:
    return abs(found - expected) < TOLERANCE * (1 + abs(expected))


def scale_of(prior: Prior) -> float:
    assert isinstance(prior, HalfNormal | HalfStudentT)
    return prior.sd


def test_linear_change_of_the_outcome(frame: pd.DataFrame) -> None:
    design, priors = built(frame)
    moved, moved_priors = built(frame.assign(y=A + B * frame["y"]))
    beta, sd, sigma = point(design)
    changed = B * beta
    changed[design.terms.index("Intercept")] += A
    before = likelihood(design, priors, beta=beta, sd=sd, sigma=sigma)
    after = likelihood(moved, moved_priors, beta=changed, sd={k: B * v for k, v in sd.items()}, sigma=B * sigma)
    assert close(after, before - design.n_obs * np.log(B))

    for label, old, new in zip(design.terms, priors.beta, moved_priors.beta, strict=True):
        assert isinstance(old, Normal)
        assert isinstance(new, Normal)
        assert new.sd == pytest.approx(B * old.sd)
        assert new.mean == pytest.approx(B * old.mean + (A if label == "Intercept" else 0.0))
    for level in design.levels:
        for old, new in zip(priors.sd[level.level], moved_priors.sd[level.level], strict=True):
            assert scale_of(new) == pytest.approx(B * scale_of(old))
    assert scale_of(moved_priors.sigma[0]) == pytest.approx(B * scale_of(priors.sigma[0]))


def test_units_of_predictors_and_of_time(frame: pd.DataFrame) -> None:
    design, priors = built(frame)
    beta, sd, sigma = point(design)
    before = likelihood(design, priors, beta=beta, sd=sd, sigma=sigma)
    weeks = frame.assign(x=10 * frame["x"], w=10 * frame["w"], day=10 * frame["session"])
    other, other_priors = built(weeks, time="day")
    factor = np.array([1.0 if label == "Intercept" else 10.0 for label in design.terms])
    by_label = dict(zip(design.terms, factor, strict=True))
    np.testing.assert_allclose(other.X, design.X * factor, atol=1e-9)
    scaled = {
        level.level: sd[level.level] / [by_label.get(term, 1.0) for term in level.terms] for level in design.levels
    }
    assert close(likelihood(other, other_priors, beta=beta / factor, sd=scaled, sigma=sigma), before)
    for old, new, by in zip(priors.beta, other_priors.beta, factor, strict=True):
        assert isinstance(old, Normal)
        assert isinstance(new, Normal)
        assert new.sd == pytest.approx(old.sd / by)
    for level in design.levels:
        pairs = zip(level.terms, priors.sd[level.level], other_priors.sd[level.level], strict=True)
        for term, old, new in pairs:
            assert scale_of(new) == pytest.approx(scale_of(old) / by_label.get(term, 1.0))


def test_order_of_units_and_parts_of_a_file(frame: pd.DataFrame) -> None:
    design, priors = built(frame)
    beta, sd, sigma = point(design)
    before = likelihood(design, priors, beta=beta, sd=sd, sigma=sigma)
    # Other ids, in the opposite order, at every level: the rows stand elsewhere, the density is the same.
    turned = frame.copy()
    for level in ("clinic", "therapist", "patient"):
        ids = sorted(frame[level].unique())
        turned[level] = frame[level].map(
            dict(zip(ids, [f"{level[0]}{len(ids) - i:03d}" for i in range(len(ids))], strict=True))
        )
    other, other_priors = built(turned)
    assert not np.array_equal(other.y, design.y)
    assert close(likelihood(other, other_priors, beta=beta, sd=sd, sigma=sigma), before)
    # One file in two parts, put together the other way round, is the same table.
    half = len(frame) // 2
    joined, _ = built(pd.concat([frame.iloc[half:], frame.iloc[:half]], ignore_index=True))
    for name in ("y", "X", "session", "previous", "gap"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(design, name))
