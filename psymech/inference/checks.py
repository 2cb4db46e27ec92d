"""Did the sampler work? One plain verdict with its figures and the remedy, from the tree alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import xarray as xr

from psymech import names
from psymech.errors import DataError
from psymech.inference.diagnostics import Entry, diagnose, selected, structural
from psymech.inference.interruption import interrupted
from psymech.names import CHAIN, DRAW, LEVELS, SAMPLE_DIMS, SAMPLE_STATS
from psymech.posterior.tree import refuse_other, units_with_rows

Verdict = Literal["ok", "not ok", "not assessable"]
Kind = Literal["failed", "not assessable", "note"]

RHAT_POPULATION: Final = 1.01  # Vehtari et al. 2021
RHAT_UNIT: Final = 1.05  # the worst of hundreds of units' effects passes 1.01 by chance where every chain is right
ESS_PER_CHAIN: Final = 100  # Vehtari et al. 2021: R-hat and the intervals' ends are themselves uncertain below
ESS_UNIT: Final = 100  # in all: a unit's interval is then known to about a tenth of its width
EBFMI_MIN: Final = 0.3  # Betancourt 2016; below, the chains hardly move between energy levels
MIN_DRAWS: Final = 100  # per chain: halves shorter than 50 draws make split R-hat too noisy to judge by
MIN_CHAINS: Final = 2
FEW_THERAPISTS: Final = 10
DEFAULT_MAX_DEPTH: Final = 10  # of PyMC, nutpie and NumPyro


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the report: what, how much, where, the limit it was held against, and whether it kept it."""

    name: str
    value: float
    where: str
    limit: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Message:
    """One finding in words, and what to do about it."""

    kind: Kind
    text: str
    remedy: str

    def __str__(self) -> str:
        """Return finding and remedy in one line."""
        return f"{self.text} {self.remedy}".strip()


@dataclass(frozen=True, slots=True)
class SamplingReport:
    """The verdict on a posterior, the figures it rests on, and what to do. Prints as plain text."""

    verdict: Verdict
    figures: tuple[Figure, ...]
    messages: tuple[Message, ...]

    @property
    def ok(self) -> bool:
        """Whether the draws may be used."""
        return self.verdict == "ok"

    def to_frame(self) -> Any:
        """Return the figures as a pandas table, one row each."""
        import pandas as pd

        return pd.DataFrame(
            [(f.name, f.value, f.limit, f.ok, f.where) for f in self.figures],
            columns=["figure", "value", "limit", "ok", "where"],
        ).set_index("figure")

    def __str__(self) -> str:
        """Return the verdict, the figures as a table and the messages."""
        lines = [f"Sampling: {self.verdict}"]
        width = max((len(f.name) for f in self.figures), default=0)
        for f in self.figures:
            mark = "ok  " if f.ok else "FAIL"
            lines.append(f"  {mark} {f.name:<{width}}  {f.value:>10.5g}  ({f.limit})  {f.where}".rstrip())
        lines += [f"  - {'note: ' if m.kind == 'note' else ''}{m}" for m in self.messages]
        return "\n".join(lines)


def check_sampling(tree: xr.DataTree) -> SamplingReport:
    r"""Judge whether a posterior's draws may be used.

    Rank-normalised split R-hat, bulk and tail effective sample size, divergences, E-BFMI per chain and saturated trees.
    Population parameters (fixed effects, SDs, correlations, residual) must have R-hat <= 1.01 and an effective
    sample size of at least 100 per chain; units' random effects R-hat <= 1.05 and 100 in all. There must be no
    divergence, and E-BFMI of at least 0.3 in each chain. Saturated trees only cost time and are noted. Entries
    constant by construction (the diagonal of a correlation matrix, correlations of an uncorrelated block) are left
    out. Of a variable with many entries those with the largest plain split R-hat and the largest lag-one
    autocorrelation are examined in full; figures say so.

    Parameters
    ----------
    tree : DataTree
        A fitted tree with the groups ``posterior`` and ``sample_stats``.

    Returns
    -------
    SamplingReport
        ``verdict`` is "ok" only where everything could be assessed and passed. A single chain, fewer than 100
        draws a chain, an interrupted run or missing sampler statistics give "not assessable"; NaN, infinite or
        constant draws give "not ok".

    Raises
    ------
    DataError
        The tree has no posterior.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter & Buerkner (2021), Rank-normalization, folding, and localization, Bayesian
    Analysis 16, 667-718. https://doi.org/10.1214/20-BA1221
    Betancourt (2016), Diagnosing suboptimal cotangent disintegrations in Hamiltonian Monte Carlo.
    https://doi.org/10.48550/arXiv.1604.00695

    Examples
    --------
    >>> import psymech as psm
    >>> print(psm.check_sampling(tree))
    Sampling: ...
      ok   chains                                       4  (>= 2)
      ok   draws per chain                            500  (>= 100)
    ...
    """
    refuse_other(tree)
    if names.POSTERIOR not in tree.children:
        raise DataError(
            f"expected a tree with the group {names.POSTERIOR!r}, found {', '.join(tree.children) or 'no group'}."
        )
    draws = tree[names.POSTERIOR].to_dataset()
    draws = draws[[name for name in draws.data_vars if set(SAMPLE_DIMS) <= set(draws[name].dims)]]
    if not draws.data_vars:
        raise DataError("expected variables with the dims chain and draw in the posterior, found none.")
    messages: list[Message] = []
    figures: list[Figure] = [
        Figure("chains", draws.sizes[CHAIN], "", f">= {MIN_CHAINS}", draws.sizes[CHAIN] >= MIN_CHAINS),
        Figure("draws per chain", draws.sizes[DRAW], "", f">= {MIN_DRAWS}", draws.sizes[DRAW] >= MIN_DRAWS),
    ]
    usable = _usable_draws(draws, messages)
    stopped = interrupted(tree)
    if stopped:
        messages.append(Message("not assessable", stopped, "Sample to the end before anything is reported."))
    _size(draws, messages)
    if usable and all(figure.ok for figure in figures):
        _convergence(draws, figures, messages)
    _statistics(tree, figures, messages)
    _few_therapists(tree, messages)
    return SamplingReport(_verdict(messages), tuple(figures), tuple(messages))


def _verdict(messages: Sequence[Message]) -> Verdict:
    kinds = {message.kind for message in messages}
    if "failed" in kinds:
        return "not ok"
    return "not assessable" if "not assessable" in kinds else "ok"


def _size(draws: xr.Dataset, messages: list[Message]) -> None:
    chains, per_chain = draws.sizes[CHAIN], draws.sizes[DRAW]
    if chains < MIN_CHAINS:
        text = f"There is {chains} chain; whether chains agree cannot be seen."
        messages.append(Message("not assessable", text, "Sample with chains=4."))
    if per_chain < MIN_DRAWS:
        text = f"There are {per_chain} draws a chain, fewer than {MIN_DRAWS}; too few to judge by."
        messages.append(Message("not assessable", text, "Sample with draws=1000."))


def _usable_draws(draws: xr.Dataset, messages: list[Message]) -> bool:
    """Report NaN, infinite and constant draws; return whether there are none."""
    before = len(messages)
    for name, variable in draws.data_vars.items():
        values, labels = selected(variable, structural(variable, draws))
        bad = ~np.isfinite(values).all(axis=(0, 1))
        if bad.any():
            text = f"{_some(str(name), labels, bad)} has draws that are NaN or infinite."
            remedy = (
                "The log density is not finite somewhere: check the data for extreme values, the priors and the start."
            )
            messages.append(Message("failed", text, remedy))
        constant = ~bad & (values == values[:1, :1]).all(axis=(0, 1))
        if constant.any():
            text = f"{_some(str(name), labels, constant)} never moves: all its draws are equal."
            messages.append(
                Message("failed", text, "The sampler is stuck; sample again with another seed, or rescale the data.")
            )
    return len(messages) == before


def _some(name: str, labels: Sequence[str], which: np.ndarray) -> str:
    found = [labels[i] for i in np.flatnonzero(which).tolist()]
    shown = ", ".join(f"{name}{label}" for label in found[:3])
    return shown if len(found) <= 3 else f"{shown} and {len(found) - 3} more"


def _convergence(draws: xr.Dataset, figures: list[Figure], messages: list[Message]) -> None:
    units = [name for name in draws.data_vars if set(LEVELS) & set(draws[name].dims)]
    population = [name for name in draws.data_vars if name not in units]
    need = ESS_PER_CHAIN * draws.sizes[CHAIN]
    failed: list[str] = []
    for title, members, rhat_max, ess_min in (
        ("", population, RHAT_POPULATION, need),
        (", units' effects", units, RHAT_UNIT, ESS_UNIT),
    ):
        examined = [diagnose(draws, str(name)) for name in members]
        entries = [entry for found, _ in examined for entry in found]
        total = sum(n for _, n in examined)
        if not entries:
            continue
        for label, worst, limit, good in _worst(entries, rhat_max, ess_min):
            where = (
                worst.label
                if len(entries) == total
                else f"{worst.label} (the {len(entries)} most suspect of {total} examined)"
            )
            value = {
                "R-hat, largest": worst.rhat,
                "ESS bulk, smallest": worst.ess_bulk,
                "ESS tail, smallest": worst.ess_tail,
            }[label]
            figures.append(Figure(label + title, value, where, limit, good))
            if not good:
                failed.append(f"{label}{title} is {value:.4g} at {worst.label} ({limit})")
    if failed:
        remedy = (
            "Sample longer (draws, tune); if R-hat stays high, the model does not fit the design: "
            "simplify its random terms."
        )
        messages.append(
            Message("failed", "The chains have not converged or are too short: " + "; ".join(failed) + ".", remedy)
        )


def _worst(entries: Sequence[Entry], rhat_max: float, ess_min: float) -> list[tuple[str, Entry, str, bool]]:
    """Return the worst entry for each figure; a figure that is not finite is the worst."""
    rhat = max(entries, key=lambda e: e.rhat if np.isfinite(e.rhat) else np.inf)
    bulk = min(entries, key=lambda e: e.ess_bulk if np.isfinite(e.ess_bulk) else -np.inf)
    tail = min(entries, key=lambda e: e.ess_tail if np.isfinite(e.ess_tail) else -np.inf)
    return [
        ("R-hat, largest", rhat, f"<= {rhat_max:g}", bool(rhat.rhat <= rhat_max)),
        ("ESS bulk, smallest", bulk, f">= {ess_min:g}", bool(bulk.ess_bulk >= ess_min)),
        ("ESS tail, smallest", tail, f">= {ess_min:g}", bool(tail.ess_tail >= ess_min)),
    ]


def _statistics(tree: xr.DataTree, figures: list[Figure], messages: list[Message]) -> None:
    if SAMPLE_STATS not in tree.children:
        text = "The tree has no sample_stats; divergences and energy cannot be judged."
        messages.append(Message("not assessable", text, "Keep the group sample_stats when storing or merging fits."))
        return
    stats = tree[SAMPLE_STATS].to_dataset()
    _divergences(stats, figures, messages)
    _energy(stats, figures, messages)
    _depth(stats, figures, messages)


def _divergences(stats: xr.Dataset, figures: list[Figure], messages: list[Message]) -> None:
    if "diverging" not in stats:
        messages.append(
            Message("not assessable", "The sampler recorded no divergences (diverging).", "Use a NUTS sampler.")
        )
        return
    values = stats["diverging"].values
    n = int(values.astype(bool).sum())
    figures.append(Figure("divergences", n, f"of {values.size} draws", "0", n == 0))
    if n:
        text = f"{n} of {values.size} draws diverged: regions of the posterior may be missing, most often at small SDs."
        remedy = (
            "Raise target_accept (0.95, 0.99), use the collapsed engine or a non-centred block, "
            "or give the SDs firmer priors."
        )
        messages.append(Message("failed", text, remedy))


def _energy(stats: xr.Dataset, figures: list[Figure], messages: list[Message]) -> None:
    if "energy" not in stats:
        messages.append(
            Message("not assessable", "The sampler recorded no energy, so E-BFMI is unknown.", "Use a NUTS sampler.")
        )
        return
    energy = stats["energy"].transpose(CHAIN, DRAW).values.astype(float)
    if energy.shape[1] < MIN_DRAWS:
        return  # the number of draws has been reported already
    variance = energy.var(axis=1, ddof=1)
    step = (np.diff(energy, axis=1) ** 2).mean(axis=1)
    bfmi = np.divide(step, variance, out=np.full_like(step, np.nan), where=variance > 0)
    for chain, value in zip(stats[CHAIN].values.tolist(), bfmi, strict=True):
        figures.append(
            Figure(f"E-BFMI, chain {chain}", float(value), "", f">= {EBFMI_MIN:g}", bool(value >= EBFMI_MIN))
        )
    if np.isnan(bfmi).any():
        text = "E-BFMI cannot be computed: a chain's energy is constant or not finite."
        messages.append(Message("failed", text, "Sample again with another seed."))
    elif (bfmi < EBFMI_MIN).any():
        text = f"E-BFMI is {bfmi.min():.2g} in the worst chain: the tails are explored slowly."
        messages.append(
            Message("failed", text, "Sample longer, use the collapsed engine, or give the SDs firmer priors.")
        )


def _depth(stats: xr.Dataset, figures: list[Figure], messages: list[Message]) -> None:
    reached = next(
        (stats[name].values.astype(bool) for name in ("maxdepth_reached", "reached_max_treedepth") if name in stats),
        None,
    )
    if reached is None:
        depth = next((stats[name] for name in ("tree_depth", "depth") if name in stats), None)
        if depth is None:
            return
        reached = depth.values >= int(stats.attrs.get("max_treedepth", DEFAULT_MAX_DEPTH))
    n = int(reached.sum())
    figures.append(Figure("saturated trees", n, f"of {reached.size} draws", "costs time only", True))
    if n:
        text = f"{n} of {reached.size} draws reached the largest tree depth: the sampler is slow, not wrong."
        messages.append(Message("note", text, "Standardise predictors, or raise max_treedepth."))


def _few_therapists(tree: xr.DataTree, messages: list[Message]) -> None:
    draws = tree[names.POSTERIOR]
    if names.sd("therapist") not in draws or "therapist" not in draws.sizes:
        return
    n = units_with_rows(tree, "therapist").size
    if n < FEW_THERAPISTS:
        text = f"The answer rests on {n} therapists; the prior on sd_therapist decides much of its posterior."
        messages.append(Message("note", text, "Report results under a second prior on sd_therapist as well."))
