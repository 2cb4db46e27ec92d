"""sample() and fit(): draws from the posterior, the same tree whichever sampler made them."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from psymech.arguments import between, checked_seed, instance, whole
from psymech.data.sessions import SessionData
from psymech.errors import SpecError
from psymech.gaussian.threads import available_cores
from psymech.graph.build import BuiltModel, Engine, build_model
from psymech.inference.chains import RunOptions
from psymech.inference.drawing import SamplingWarning, draw_tree, warn_interrupted
from psymech.inference.interruption import interrupted
from psymech.inference.run import Sampler
from psymech.inference.stages import Stages
from psymech.names import Level
from psymech.priors import prior_notes
from psymech.spec.model import ModelSpec, one_of

_EFFECTS_LIMIT = 2 * 2**30
_ACCEPT = {"collapsed": 0.8, "explicit": 0.9}
DEEPEST = 20
SEEDS = 2**64
SAMPLERS = ("nutpie", "pymc", "numpyro", "blackjax")


def sample(
    built: BuiltModel,
    *,
    draws: int = 1000,
    tune: int = 1000,
    chains: int = 4,
    seed: int | None = None,
    sampler: Sampler = "nutpie",
    cores: int | None = None,
    target_accept: float | None = None,
    max_treedepth: int = 10,
    effects: Iterable[Level] | None = None,
    store: str | Path | None = None,
    progressbar: bool = True,
) -> xr.DataTree:
    """Draw from the posterior of a built model.

    Parameters
    ----------
    built
        From :func:`psymech.build_model`.
    draws, tune, chains
        Kept draws and warm-up draws a chain, and the number of chains.
    seed
        One number for everything random; the same seed, sampler and versions give the same draws. None draws a seed,
        which is written into the tree.
    sampler
        ``"nutpie"`` (fastest on a CPU), ``"pymc"``, ``"numpyro"`` or ``"blackjax"`` (both from the extra
        ``psymech[jax]``).
    cores
        Chains that run at once; by default as many as the machine has.
    target_accept, max_treedepth
        Of the no-U-turn sampler. By default the collapsed engine accepts 0.8, where it is most efficient
        (docs/parametrisation.md), the explicit graph 0.9.
    effects
        Levels whose random effects are kept, such as ``["therapist"]``. By default every level whose draws take less
        than 2 GiB; what is left out is told, and stands in the tree's attributes.
    store
        A path that ends in ``.nc`` or ``.zarr``: chains are kept there as they come, and the finished fit is saved
        there. A run that was stopped, killed or cut off goes on with :func:`psymech.resume`; see docs/faults.md.
    progressbar
        Show the stages and the sampler's progress.

    Returns
    -------
    DataTree
        Groups posterior, sample_stats, observed_data and constant_data, as docs/tree.md describes; attributes tell
        version, specification, engine, seed, sampler and seconds of compiling, sampling and recovering. After Ctrl-C it
        holds what was drawn, says so in the attribute ``psymech_interrupted`` and in a
        :class:`psymech.SamplingWarning`, and fails :func:`psymech.check_sampling`.

    Raises
    ------
    SpecError
        An option that is not among those above.
    DataError
        `store` exists, or its disk is full.

    Examples
    --------
    >>> import psymech as psm
    >>> data = psm.load_example("process_study")
    >>> built = psm.build_model(psm.growth("phq9"), data)
    >>> tree = psm.sample(built, draws=200, tune=200, chains=2, seed=1, progressbar=False)
    >>> tree["posterior"]["u_therapist"].dims
    ('chain', 'draw', 'therapist', 'therapist_term')
    """
    stages = Stages(show=progressbar)
    options = _run_options(
        built,
        draws=draws,
        tune=tune,
        chains=chains,
        seed=seed,
        sampler=sampler,
        cores=cores,
        target_accept=target_accept,
        max_treedepth=max_treedepth,
        effects=effects,
        stages=stages,
    )
    tree = _drawn(built, sampler, options, stages, store, {})
    warn_interrupted(tree, _how_to_go_on(store), stacklevel=2)
    return tree


def _how_to_go_on(store: str | Path | None) -> str:
    return "Sample again for a fit to rely on." if store is None else f"Go on with psymech.resume({str(store)!r})."


def _drawn(
    built: BuiltModel,
    sampler: Sampler,
    options: RunOptions,
    stages: Stages,
    store: str | Path | None,
    attrs: Mapping[str, str | int | float],
) -> xr.DataTree:
    if store is None:
        return draw_tree(built, sampler, options, stages, attrs=attrs)
    from psymech.inference.resume import sample_into

    return sample_into(store, built, sampler, options, stages, attrs)


def _run_options(
    built: BuiltModel,
    *,
    draws: int,
    tune: int,
    chains: int,
    seed: int | None,
    sampler: Sampler,
    cores: int | None,
    target_accept: float | None,
    max_treedepth: int,
    effects: Iterable[Level] | None,
    stages: Stages,
) -> RunOptions:
    instance(built, BuiltModel, "built", "what psymech.build_model returns")
    one_of(sampler, SAMPLERS, "sampler")
    for argument, value in (("draws", draws), ("tune", tune), ("chains", chains), ("max_treedepth", max_treedepth)):
        whole(value, argument)
    if cores is not None:
        whole(cores, "cores")
    if target_accept is not None:
        between(target_accept, "target_accept")
    if max_treedepth > DEEPEST:
        raise SpecError(f"max_treedepth: expected at most {DEEPEST}, 2**{DEEPEST} steps a draw, found {max_treedepth}.")
    given = checked_seed(seed)
    chosen_seed = int(np.random.SeedSequence().generate_state(1)[0]) if given is None else given
    if chosen_seed >= SEEDS:
        raise SpecError(f"seed: expected a whole number below 2**64, found {seed!r}.")
    return RunOptions(
        draws=int(draws),
        tune=int(tune),
        chains=int(chains),
        cores=cores or min(int(chains), available_cores()),
        seed=chosen_seed,
        target_accept=_ACCEPT[built.engine] if target_accept is None else target_accept,
        max_treedepth=max_treedepth,
        progressbar=stages.show,
        effects=_kept_effects(built, effects, int(draws) * int(chains), stages),
    )


def fit(
    spec: ModelSpec,
    data: SessionData,
    *,
    engine: Engine = "auto",
    draws: int = 1000,
    tune: int = 1000,
    chains: int = 4,
    seed: int | None = None,
    sampler: Sampler = "nutpie",
    cores: int | None = None,
    target_accept: float | None = None,
    max_treedepth: int = 10,
    effects: Iterable[Level] | None = None,
    store: str | Path | None = None,
    progressbar: bool = True,
) -> xr.DataTree:
    """Build, sample, recover the random effects and check: the everyday call.

    Issues a :class:`psymech.SamplingWarning` where :func:`psymech.check_sampling` is not content, with the remedy.

    Parameters
    ----------
    spec, data
        Model and table.
    engine
        As in :func:`psymech.build_model`.
    draws, tune, chains, seed, sampler, cores, target_accept, max_treedepth, effects, store, progressbar
        As in :func:`psymech.sample`.

    Returns
    -------
    DataTree

    Examples
    --------
    >>> import psymech as psm
    >>> data = psm.load_example("process_study")
    >>> tree = psm.fit(psm.growth("phq9"), data, draws=500, tune=500, seed=1, progressbar=False)
    >>> tree.attrs["sampler"]
    'nutpie'
    """
    from psymech.inference.checks import check_sampling

    stages = Stages(show=progressbar)
    with stages.stage("check", "checking the design and building the model"):
        built = build_model(spec, data, engine)
    stages.tell(f"engine: {built.engine} ({built.reason})")
    for note in prior_notes(built.design):
        stages.tell(note)
    options = _run_options(
        built,
        draws=draws,
        tune=tune,
        chains=chains,
        seed=seed,
        sampler=sampler,
        cores=cores,
        target_accept=target_accept,
        max_treedepth=max_treedepth,
        effects=effects,
        stages=stages,
    )
    tree = _drawn(built, sampler, options, stages, store, dict(stages.seconds))
    report = check_sampling(tree)
    stages.tell(f"sampling: {report.verdict}")
    if report.verdict != "ok":
        advice = f"\n{_how_to_go_on(store)}" if interrupted(tree) else ""
        warnings.warn(f"{report}{advice}", SamplingWarning, stacklevel=2)
    return tree


def _kept_effects(built: BuiltModel, asked: Iterable[Level] | None, n_draws: int, stages: Stages) -> tuple[Level, ...]:
    present = [level.level for level in built.design.levels]
    if asked is not None:
        if isinstance(asked, str) or not isinstance(asked, Iterable):
            raise SpecError(f"effects: expected a list of levels such as ['therapist'], found {asked!r}.")
        chosen = tuple(asked)
        for level in chosen:
            one_of(level, tuple(present), "effects")
        return chosen
    kept = []
    for level in built.design.levels:
        size = 8 * n_draws * level.n_units * len(level.terms)
        if size < _EFFECTS_LIMIT:
            kept.append(level.level)
        else:
            stages.tell(
                f"the effects of {level.n_units} {level.level}s would take {size / 2**30:.1f} GiB and are left out; "
                f"ask for them with effects={present}, or take fewer draws"
            )
    return tuple(kept)
