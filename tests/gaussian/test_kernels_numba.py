"""The compiled kernel against the NumPy engine, few shapes and many designs."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from engine_designs import Case, make_case

from psymech.errors import SpecError
from psymech.gaussian import blocks
from psymech.gaussian.cross import CrossProducts, cross_products
from psymech.gaussian.kernels_numba import bind
from psymech.gaussian.loglik import Gradient, value_and_grad

RTOL = 1e-9  # two exact algorithms in double precision; gradients relative to their largest entry

SHAPES = {
    "one level": {"n_levels": 1, "n_random": (2,), "n_extra": 1},
    "two levels": {"n_levels": 2, "n_random": (4, 4), "n_extra": 0},
    "two levels, two residual SDs": {
        "n_levels": 2, "n_random": (8, 1), "n_extra": 2, "n_responses": 2, "residual": "by_group"
    },
    "three levels, free residual covariance": {
        "n_levels": 3, "n_random": (1, 3, 2), "n_responses": 2, "residual": "unstructured"
    },
}  # fmt: skip
KINDS = ("plain", "zero_sd", "zero", "rank_one")


def agree(case: Case, *, integrate: bool) -> None:
    at = case.structure.evaluate(case.theta)
    top = {"prior": case.prior} if integrate else {"beta": case.beta}
    compare(
        bind(case.cross, integrate=integrate).value_and_grad(at.coefs, case.factors, at.log_det, **top),
        value_and_grad(case.cross, at.coefs, case.factors, at.log_det, **top),
    )


def compare(found: tuple[float, Gradient], expected: tuple[float, Gradient]) -> None:
    assert found[0] == pytest.approx(expected[0], rel=RTOL)
    pairs = [(found[1].coefs, expected[1].coefs), (found[1].beta, expected[1].beta)]
    pairs += [(found[1].prior_mean, expected[1].prior_mean)]
    pairs += [(f, np.tril(e)) for f, e in zip(found[1].factors, expected[1].factors, strict=True)]
    for f, e in pairs:
        assert (f is None) == (e is None)
        if f is not None and e is not None:
            np.testing.assert_allclose(f, e, rtol=RTOL, atol=RTOL * max(1.0, np.abs(e).max(initial=0.0)))


@pytest.mark.parametrize("integrate", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_kernel_equals_numpy(name: str, integrate: bool) -> None:
    shape = SHAPES[name]
    for seed in range(12):
        kinds = tuple(KINDS[(seed + level) % 4] for level in range(shape["n_levels"]))
        agree(make_case(seed, factor_kinds=kinds, **shape), integrate=integrate)


def caseloads(counts: list[int], *, q: int, clinics: list[int] | None = None) -> CrossProducts:
    """Return a design with the given patients for each therapist, and therapists for each clinic."""
    rng = np.random.default_rng(len(counts))
    n = sum(counts)
    unit = np.repeat(np.arange(n), rng.integers(1, 6, size=n))
    columns = np.column_stack([np.ones(unit.size), rng.normal(size=(unit.size, q - 1))])
    parents = [np.repeat(np.arange(len(counts)), counts)]
    if clinics:
        parents.append(np.repeat(np.arange(len(clinics)), clinics))
    z = [np.arange(q)] * (len(parents) + 1)
    return cross_products(columns, rng.normal(size=unit.size) + 4, unit, parents, z, np.arange(q))


@pytest.mark.parametrize("padding", [1.0, 8.0])
@pytest.mark.parametrize("counts", [[40], [1] * 30, [8] * 9, [1, 30, 2, 17, 8, 1, 1, 5], [3, 3, 3]])
def test_every_way_of_filling_blocks_gives_the_same_numbers(
    counts: list[int], padding: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "MAX_PADDING", padding)
    cross, rng = caseloads(counts, q=4), np.random.default_rng(3)
    factors = [np.tril(rng.normal(size=(4, 4))) for _ in range(2)]
    prior = (np.zeros(4), np.full(4, 0.1))
    compare(
        bind(cross, integrate=True).value_and_grad([0.7], factors, 1.3, prior=prior),
        value_and_grad(cross, [0.7], factors, 1.3, prior=prior),
    )


def test_many_large_pivots_do_not_overflow() -> None:
    cross = caseloads([50] * 6, q=4)
    factors = [1e3 * np.eye(4), 1e2 * np.eye(4)]  # the product of all pivots exceeds 1e308
    prior = (np.zeros(4), np.full(4, 0.1))
    found, _ = bind(cross, integrate=True).value_and_grad([1.0], factors, 0.0, prior=prior)
    assert np.isfinite(found)
    assert found == pytest.approx(value_and_grad(cross, [1.0], factors, 0.0, prior=prior)[0], rel=RTOL)


def test_impossible_parameters_give_no_finite_value() -> None:
    bound, prior = bind(caseloads([3, 3, 3], q=4), integrate=True), (np.zeros(4), np.full(4, 0.1))
    for bad in (np.nan, -1.0):
        assert not np.isfinite(bound.value_and_grad([bad], [np.eye(4)] * 2, 0.0, prior=prior)[0])


@pytest.mark.parametrize("integrate", [True, False])
def test_model_without_fixed_effects(integrate: bool) -> None:
    full = caseloads([3, 3, 3], q=4)
    cross = CrossProducts(full.S, full.parents, full.z, np.empty(0, dtype=np.int64), full.n_obs_by_unit)
    top = {"prior": (np.empty(0), np.empty((0, 0)))} if integrate else {"beta": np.empty(0)}
    factors = [np.eye(4), 0.5 * np.eye(4)]
    compare(
        bind(cross, integrate=integrate).value_and_grad([0.7], factors, 1.3, **top),
        value_and_grad(cross, [0.7], factors, 1.3, **top),
    )


def test_two_threads_share_nothing() -> None:
    bound, prior = bind(caseloads([8] * 9, q=4), integrate=True), (np.zeros(4), np.full(4, 0.1))
    scales = np.linspace(0.1, 2, 40)

    def value(scale: float) -> float:
        return bound.value_and_grad([1.0], [scale * np.eye(4)] * 2, 0.0, prior=prior)[0]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(value, scales)) == [value(scale) for scale in scales]


def test_wrong_calls_are_refused() -> None:
    bound = bind(caseloads([3, 3, 3], q=4), integrate=True)
    with pytest.raises(SpecError, match="expects prior"):
        bound.value_and_grad([1.0], [np.eye(4)] * 2, 0.0, beta=np.zeros(4))
    with pytest.raises(SpecError, match="lower-triangular"):
        bound.value_and_grad([1.0], [np.ones((4, 4))] * 2, 0.0, prior=(np.zeros(4), np.ones(4)))


SECOND_PROCESS = """
import numpy as np
from psymech.gaussian.cross import cross_products
from psymech.gaussian.kernels_numba import bind
bound = bind(cross_products([[1.0], [1.0]], [1.0, 2.0], [0, 1], [], [[0]], [0]), integrate=False)
value, _ = bound.value_and_grad([1.0], [[[0.5]]], 0.0, beta=[0.0])
print(len(bound.kernel.stats.cache_hits), len(bound.kernel.stats.cache_misses), repr(value))
"""


def test_second_process_compiles_nothing(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [
        subprocess.run(
            [sys.executable, "-c", SECOND_PROCESS],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert runs[0][:2] == ["0", "1"] and runs[1][:2] == ["1", "0"]
    assert runs[0][2] == runs[1][2]
