"""Prior distributions as values, addressed by the name of the parameter they belong to.

A key names a variable (``"sd_therapist"``, every term) or one of its entries (``"sd_therapist[Intercept]"``,
``"beta[alliance.within]"``). The more exact key wins.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields

from psymech.arguments import is_number, mapping
from psymech.errors import SpecError


def _positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not (is_number(value) and value > 0):
            raise SpecError(f"{type(owner).__name__}.{name} must be a finite number above zero, found {value!r}.")


@dataclass(frozen=True, slots=True)
class Normal:
    """Normal prior of a fixed effect, with its mean and standard deviation."""

    mean: float = 0.0
    sd: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, "sd")
        if not is_number(self.mean):
            raise SpecError(f"Normal.mean must be a finite number, found {self.mean!r}.")


@dataclass(frozen=True, slots=True)
class StudentT:
    """Student-t prior of a fixed effect, heavy-tailed: degrees of freedom, mean, and `sd` as the scale."""

    nu: float = 3.0
    mean: float = 0.0
    sd: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, "sd", "nu")
        if not is_number(self.mean):
            raise SpecError(f"StudentT.mean must be a finite number, found {self.mean!r}.")


@dataclass(frozen=True, slots=True)
class HalfNormal:
    """Half-normal(sd) on the positive axis: standard deviations. Its median is 0.674 sd."""

    sd: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, "sd")


@dataclass(frozen=True, slots=True)
class HalfStudentT:
    """Half-Student-t(nu, sd) on the positive axis: standard deviations with heavy tails."""

    nu: float = 3.0
    sd: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, "sd", "nu")


@dataclass(frozen=True, slots=True)
class Exponential:
    """Exponential with the given mean: standard deviations."""

    mean: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, "mean")


@dataclass(frozen=True, slots=True)
class LKJ:
    """Prior of a correlation matrix (Lewandowski, Kurowicka & Joe 2009, doi:10.1016/j.jmva.2009.04.008).

    eta = 1 is flat, larger values pull correlations towards zero.
    """

    eta: float = 2.0

    def __post_init__(self) -> None:
        _positive(self, "eta")


@dataclass(frozen=True, slots=True)
class Gamma:
    """Gamma prior of the degrees of freedom of Student residuals, with its shape and rate."""

    shape: float = 2.0
    rate: float = 0.1

    def __post_init__(self) -> None:
        _positive(self, "shape", "rate")


@dataclass(frozen=True, slots=True)
class SymmetricBeta:
    """2 Beta(a, a) - 1 on (-1, 1): a residual autocorrelation, the correlation of therapists' log SDs with effects."""

    a: float = 2.0

    def __post_init__(self) -> None:
        _positive(self, "a")


Prior = Normal | StudentT | HalfNormal | HalfStudentT | Exponential | LKJ | Gamma | SymmetricBeta
FIXED_PRIORS = (Normal, StudentT)
SCALE_PRIORS = (HalfNormal, HalfStudentT, Exponential)
_BY_NAME: dict[str, type] = {
    c.__name__: c for c in (Normal, StudentT, HalfNormal, HalfStudentT, Exponential, LKJ, Gamma, SymmetricBeta)
}
_ALLOWED: dict[str, tuple[type, ...]] = {
    "beta": FIXED_PRIORS,
    "sd_patient": SCALE_PRIORS,
    "sd_therapist": SCALE_PRIORS,
    "sd_clinic": SCALE_PRIORS,
    "corr_patient": (LKJ,),
    "corr_therapist": (LKJ,),
    "corr_clinic": (LKJ,),
    "corr_residual": (LKJ,),
    "sigma": SCALE_PRIORS,
    "loading": FIXED_PRIORS,
    "sd_log_sigma": SCALE_PRIORS,
    "corr_log_sigma": (SymmetricBeta,),
    "phi": (SymmetricBeta,),
    "nu": (Gamma,),
    "cutpoints": (Normal,),
}


def variable_of(key: str) -> str:
    """``"sd_therapist[Intercept]"`` belongs to the variable ``"sd_therapist"``."""
    return key.split("[", 1)[0]


def check_priors(priors: Mapping[str, Prior] | None) -> tuple[tuple[str, Prior], ...]:
    """Return the overrides as a sorted tuple, refusing unknown names and unfitting families."""
    if priors is None:
        return ()
    mapping(priors, "priors", "{'sd_therapist[Intercept]': HalfNormal(2)}")
    for key, prior in priors.items():
        variable = variable_of(str(key))
        if not isinstance(key, str) or variable not in _ALLOWED or (key != variable and not key.endswith("]")):
            known = ", ".join(_ALLOWED)
            raise SpecError(
                f"priors: {key!r} names no parameter. Expected one of {known}, "
                "or one entry such as 'beta[time]' or 'sd_therapist[Intercept]'."
            )
        allowed = _ALLOWED[variable]
        if not isinstance(prior, allowed):
            names = ", ".join(t.__name__ for t in allowed)
            raise SpecError(f"priors: {key!r} takes {names}, found {prior!r}.")
    return tuple(sorted(priors.items()))


def lookup(priors: Iterable[tuple[str, Prior]], variable: str, entry: str | None = None) -> Prior | None:
    """Return the user's prior of one entry: the exact key first, then the variable's."""
    table = dict(priors)
    if entry is not None and f"{variable}[{entry}]" in table:
        return table[f"{variable}[{entry}]"]
    return table.get(variable)


def to_dict(prior: Prior) -> dict[str, object]:
    """``HalfNormal(2)`` becomes ``{"family": "HalfNormal", "sd": 2}``."""
    plain = {name: value if isinstance(value, int) else float(value) for name, value in asdict(prior).items()}
    return {"family": type(prior).__name__, **plain}


def from_dict(values: Mapping[str, object]) -> Prior:
    """Inverse of :func:`to_dict`."""
    family = _BY_NAME.get(str(values.get("family")))
    if family is None:
        raise SpecError(f"{values.get('family')!r} is no prior family. Expected one of {', '.join(_BY_NAME)}.")
    return family(**{f.name: values[f.name] for f in fields(family)})


def describe(prior: Prior) -> str:
    """One line such as ``Normal(mean=0, sd=2.5)``."""
    inner = ", ".join(f"{f.name}={getattr(prior, f.name):.4g}" for f in fields(prior))
    return f"{type(prior).__name__}({inner})"
