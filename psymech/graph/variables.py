"""Building blocks that both engines share: scales, correlations and covariance factors as PyMC variables."""

from collections.abc import Sequence

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from numpy.typing import NDArray
from pytensor.tensor.variable import TensorVariable

from psymech import names
from psymech.errors import SpecError
from psymech.spec.priors import LKJ, Exponential, HalfNormal, HalfStudentT, Normal, Prior, StudentT, SymmetricBeta


def matmul(a: TensorVariable, b: TensorVariable) -> TensorVariable:
    """Product of a matrix with a vector or a small matrix, written as a sum.

    A ``dot`` node costs the compiler 10 s or more each (every call instantiates BLAS wrappers), and the products here
    are with ten columns or so: the sum costs nothing at run time and cuts the first compilation from 140 to 30 CPU
    seconds.
    """
    if b.ndim == 1:
        return pt.sum(a * b[None, :], axis=1)
    return pt.sum(a[:, :, None] * b[None, :, :], axis=1)


def _groups(priors: Sequence[Prior]) -> list[tuple[type, list[int]]]:
    order: dict[type, list[int]] = {}
    for index, prior in enumerate(priors):
        order.setdefault(type(prior), []).append(index)
    return list(order.items())


def _assemble(pieces: list[tuple[list[int], TensorVariable]], size: int) -> TensorVariable:
    if len(pieces) == 1:
        return pieces[0][1]
    vector = pt.zeros(size)
    for index, piece in pieces:
        vector = pt.set_subtensor(vector[np.array(index)], piece)
    return vector


def standard_vector(
    name: str, priors: Sequence[Normal | StudentT], moved: TensorVariable | None = None
) -> TensorVariable:
    """Vector of fixed effects: location + scale times a standardised free variable, one free vector per family.

    With `moved`, of the same length, the free variable stands for the vector plus `moved`; the vector's density is the
    same.
    """
    pieces = []
    location = np.array([p.mean for p in priors], dtype=float)
    scale = np.array([p.sd for p in priors], dtype=float)
    groups = _groups(priors)
    for family, index in groups:
        key = name if len(groups) == 1 else f"{name}_{family.__name__}"
        mu = 0.0 if moved is None else (moved / scale)[np.array(index)]
        if family is Normal:
            pieces.append((index, pm.Normal(key, mu, 1.0, shape=len(index))))
        else:
            nu = np.array([float(p.nu) for p in (priors[i] for i in index) if isinstance(p, StudentT)])
            pieces.append((index, pm.StudentT(key, nu=nu, mu=mu, sigma=1.0, shape=len(index))))
    vector = location + scale * _assemble(pieces, len(priors))
    return vector if moved is None else vector - moved


def signed_scales(name: str, priors: Sequence[Prior]) -> TensorVariable:
    """Scales on the whole real line whose absolute values have the given priors.

    The density stays smooth through zero, where a log scale would have an endless left tail. Flipping a sign,
    together with its correlations, leaves the model unchanged: only ``factor @ factor.T`` has a meaning.

    No starting value is set: PyMC refuses to transform models that have one (``pm.observe``, ``pm.do``). Samplers
    start at zero plus a jitter, off the mirror's plane.
    """
    return _scales(name, priors, signed=True)


def positive_scales(name: str, priors: Sequence[Prior]) -> TensorVariable:
    """Scales on the positive axis, sampled as logarithms."""
    return _scales(name, priors, signed=False)


def _scales(name: str, priors: Sequence[Prior], *, signed: bool) -> TensorVariable:
    pieces = []
    groups = _groups(priors)
    for family, index in groups:
        key = name if len(groups) == 1 else f"{name}_{family.__name__}"
        chosen = [priors[i] for i in index]
        spread = np.array([p.mean if isinstance(p, Exponential) else _sd_of(p) for p in chosen])
        n = len(index)
        if family is HalfNormal:
            v = pm.Normal(key, 0.0, spread, shape=n) if signed else pm.HalfNormal(key, spread, shape=n)
        elif family is HalfStudentT:
            nu = np.array([p.nu for p in chosen if isinstance(p, HalfStudentT)])
            v = (
                pm.StudentT(key, nu=nu, mu=0.0, sigma=spread, shape=n)
                if signed
                else pm.HalfStudentT(key, nu=nu, sigma=spread, shape=n)
            )
        elif family is Exponential:
            v = pm.Laplace(key, 0.0, spread, shape=n) if signed else pm.Exponential(key, scale=spread, shape=n)
        else:
            raise SpecError(f"{chosen[0]!r} is no prior of a standard deviation.")
        pieces.append((index, v))
    return _assemble(pieces, len(priors))


def _sd_of(prior: Prior) -> float:
    if isinstance(prior, HalfNormal | HalfStudentT):
        return float(prior.sd)
    raise SpecError(f"{prior!r} is no prior of a standard deviation.")


def correlation_factor(name: str, prior: LKJ, q: int, zero: NDArray[np.bool_] | None = None) -> TensorVariable:
    r"""Cholesky factor of a correlation matrix with an LKJ(eta) prior, from canonical partial correlations.

    The partial correlation in column j (1-based) of a row below it is 2 Beta(a, a) - 1 with a = eta + (q - 1 - j) / 2,
    independently (Lewandowski, Kurowicka & Joe 2009, doi:10.1016/j.jmva.2009.04.008); then
    :math:`C_{ij} = r_{ij}\prod_{l<j}\sqrt{1-r_{il}^2}`. Those marked in `zero` (q, q) are fixed at zero.
    """
    rows, columns = np.tril_indices(q, -1)
    if zero is not None:
        free = ~zero[rows, columns]
        rows, columns = rows[free], columns[free]
        if not free.any():
            return pt.eye(q)
    a = prior.eta + (q - 2 - columns) / 2.0
    partial = 2.0 * pm.Beta(name, a, a, shape=len(a)) - 1.0
    place = np.zeros((q * q, len(a)))
    place[rows * q + columns, np.arange(len(a))] = 1.0
    r = matmul(pt.constant(place), partial).reshape((q, q))
    before = np.triu(np.ones((q, q)), 1)  # (log1p(-r^2) @ before)[i, j] sums over l < j
    return (r + np.eye(q)) * np.tril(np.ones((q, q))) * pt.exp(0.5 * matmul(pt.log1p(-(r**2)), pt.constant(before)))


def autocorrelation(prior: SymmetricBeta) -> TensorVariable:
    """Register phi with 2 Beta(a, a) - 1."""
    a = np.float64(prior.a)  # a Python float would be taken in single precision
    return pm.Deterministic(names.PHI, 2.0 * pm.Beta("phi_half", a, a) - 1.0)


def covariance_factor(
    level: str, priors: Sequence[Prior], lkj: LKJ | None, *, signed: bool, zero: NDArray[np.bool_] | None = None
) -> TensorVariable:
    """Lower-triangular L with covariance L L' of a level's random effects; diagonal where `lkj` is None."""
    scales = (signed_scales if signed else positive_scales)(f"scale_{level}", priors)
    if lkj is None:
        return scales[:, None] * np.eye(len(priors))
    return scales[:, None] * correlation_factor(f"partial_{level}", lkj, len(priors), zero)


def register_covariance(level: str, factor: TensorVariable, *, correlated: bool) -> None:
    """Add sd_<level> and corr_<level> to the model: what is reported of a covariance factor."""
    dim = names.term_dim(level)
    sd = pt.sqrt(pt.sum(factor**2, axis=1))
    pm.Deterministic(names.sd(level), sd, dims=(dim,))
    if correlated:
        unit = factor / pt.expand_dims(sd, 1)
        pm.Deterministic(names.corr(level), matmul(unit, unit.T), dims=(dim, dim + names.AUX))
