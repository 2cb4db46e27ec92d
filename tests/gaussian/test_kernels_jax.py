"""The JAX face against the NumPy engine: values, gradients, singular factors, vectorised chains, second derivatives."""

from collections.abc import Iterator

import numpy as np
import pytest
from engine_designs import Case, make_case

from psymech.errors import SpecError
from psymech.gaussian.loglik import value_and_grad

jax = pytest.importorskip("jax", reason="needs the jax extra")

from psymech.gaussian.kernels_jax import make_log_likelihood  # noqa: E402

RTOL = 1e-9  # two exact algorithms in double precision; gradients relative to their largest entry
HESSIAN_TOL = 1e-5  # central differences of an exact gradient


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


CASES = {
    "one level": {"n_levels": 1, "n_random": (2,)},
    "square and zero factors": {"n_levels": 2, "n_random": (3, 2), "factor_kinds": ("square", "zero")},
    "rank one": {"n_levels": 2, "n_random": (4, 4), "factor_kinds": ("rank_one", "zero_sd"), "n_extra": 2},
    "three levels, two responses": {
        "n_levels": 3, "n_random": (8, 2, 1), "n_responses": 2, "residual": "ar1_by_group"
    },
}  # fmt: skip


def arguments(case: Case, *, integrate: bool) -> tuple:
    at, cross = case.structure.evaluate(case.theta), case.cross
    center, precision = case.prior if integrate else (case.beta, None)
    return cross.S, cross.parents, cross.n_obs, at.coefs, list(case.factors), at.log_det, center, precision


@pytest.mark.parametrize(("name", "integrate"), [*zip(CASES, [True, False, True, False], strict=True)])
def test_jax_equals_numpy(name: str, integrate: bool) -> None:
    case = make_case(3, **CASES[name])
    args = arguments(case, integrate=integrate)
    top = {"prior": case.prior} if integrate else {"beta": case.beta}
    expected, gradient = value_and_grad(case.cross, args[3], args[4], args[5], **top)
    f = make_log_likelihood(case.cross, integrate=integrate)
    value, (coefs, factors, log_det, center) = jax.jit(jax.value_and_grad(f, argnums=(3, 4, 5, 6)))(*args)
    assert value == pytest.approx(expected, rel=RTOL)
    assert log_det == gradient.log_det_R
    pairs = [(coefs, gradient.coefs), (center, gradient.prior_mean if integrate else gradient.beta)]
    for found, wanted in [*pairs, *zip(factors, gradient.factors, strict=True)]:
        np.testing.assert_allclose(found, wanted, rtol=RTOL, atol=RTOL * np.abs(wanted).max())


def test_mapped_over_chains() -> None:
    case = make_case(4, n_levels=2)
    S, parents, n_obs, coefs, factors, log_det, center, precision = arguments(case, integrate=True)
    scales = np.array([0.0, 0.5, 2.0])
    f = make_log_likelihood(case.cross, integrate=True)
    together = jax.jit(
        jax.vmap(
            jax.value_and_grad(
                lambda s: f(S, parents, n_obs, coefs, [s * L for L in factors], log_det, center, precision)
            )
        )
    )(scales)
    for index, scale in enumerate(scales):
        scaled = [scale * factor for factor in factors]
        value, gradient = value_and_grad(case.cross, coefs, scaled, log_det, prior=case.prior)
        slope = sum(float((bar * L).sum()) for bar, L in zip(gradient.factors, factors, strict=True))
        assert together[0][index] == pytest.approx(value, rel=RTOL)
        assert together[1][index] == pytest.approx(slope, rel=RTOL, abs=RTOL)


def test_second_derivatives() -> None:
    case = make_case(4, n_levels=2, factor_kinds=("plain", "zero"))
    args = list(arguments(case, integrate=True))
    step = 1e-5

    def gradient_at(log_coefs: np.ndarray) -> np.ndarray:
        coefs = np.exp(log_coefs)
        return value_and_grad(case.cross, coefs, args[4], args[5], prior=case.prior)[1].coefs * coefs

    at = np.log(args[3])
    numeric = (gradient_at(at + step) - gradient_at(at - step)) / (2 * step)
    f = make_log_likelihood(case.cross, integrate=True)
    hessian = jax.jit(jax.hessian(lambda c: f(*args[:3], jax.numpy.exp(c), *args[4:])))(at)
    by_factor = jax.jit(jax.hessian(lambda L: f(*args[:4], [args[4][0], L], *args[5:])))(args[4][1])
    np.testing.assert_allclose(hessian[0], numeric, rtol=HESSIAN_TOL)
    assert np.isfinite(by_factor).all() and np.any(by_factor != 0)


def test_single_precision_is_refused() -> None:
    case = make_case(4)
    with jax.enable_x64(False), pytest.raises(SpecError, match="double precision"):
        make_log_likelihood(case.cross, integrate=True)(*arguments(case, integrate=True))
