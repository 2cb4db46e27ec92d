"""Fitted trees made with NumPy: known parameters, draws around them, the contract of a real fit."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from psymech import names


@dataclass(frozen=True, slots=True)
class Truth:
    """What the trees are made of; time is centred nowhere: it runs 0, 1, 2, ..."""

    beta: Mapping[str, float] = field(
        default_factory=lambda: {
            "Intercept": 20.0,
            "time": -0.6,
            "alliance.within": -1.0,
            "alliance.patient": -2.5,
            "alliance.therapist": -4.0,
        }
    )
    sd: Mapping[str, Mapping[str, float]] = field(
        default_factory=lambda: {
            "patient": {"Intercept": 4.0, "time": 0.4},
            "therapist": {"Intercept": 2.0, "time": 0.2},
        }
    )
    corr: Mapping[str, float] = field(default_factory=lambda: {"patient": -0.3, "therapist": 0.2})
    sigma: float = 3.0


def part_of(label: str) -> str:
    return label.rpartition(".")[2] if "." in label else "raw"


def make_tree(
    *,
    n_therapists: int = 6,
    patients_each: int = 5,
    sessions_each: int = 8,
    chains: int = 4,
    draws: int = 250,
    truth: Truth | None = None,
    family: str = "gaussian",
    residual: str = "iid",
    spread: float = 0.1,
    seed: int = 20240501,
    therapist_ids: Sequence[object] | None = None,
    levels: Sequence[str] = ("patient", "therapist"),
    clinics: int = 0,
) -> xr.DataTree:
    """Simulate a study and build a tree around its parameters: each draw is the truth plus noise of relative size
    `spread`."""
    truth = truth or Truth()
    rng = np.random.default_rng(seed)
    n_patients = n_therapists * patients_each
    therapist_of_patient = np.repeat(np.arange(n_therapists), patients_each)
    length = rng.integers(max(2, sessions_each - 3), sessions_each + 1, n_patients)
    patient_of_obs = np.repeat(np.arange(n_patients), length)
    session = np.concatenate([np.arange(n) for n in length])
    therapist_of_obs = therapist_of_patient[patient_of_obs]
    n_obs = patient_of_obs.size

    raw = (
        rng.normal(size=n_therapists)[therapist_of_obs]
        + rng.normal(size=n_patients)[patient_of_obs]
        + rng.normal(size=n_obs)
    )
    patient_mean = (np.bincount(patient_of_obs, raw) / np.bincount(patient_of_obs))[patient_of_obs]
    therapist_mean = (np.bincount(therapist_of_obs, raw) / np.bincount(therapist_of_obs))[therapist_of_obs]
    columns = {
        "Intercept": np.ones(n_obs),
        "time": session.astype(float),
        "alliance.within": raw - patient_mean,
        "alliance.patient": patient_mean - therapist_mean,
        "alliance.therapist": therapist_mean,
    }
    terms = list(truth.beta)
    x = np.stack([columns[term] for term in terms], axis=1)

    units = {
        "patient": [f"P{i:04d}" for i in range(n_patients)],
        "therapist": list(therapist_ids)
        if therapist_ids is not None
        else [f"T{k + 1:03d}" for k in range(n_therapists)],
        "clinic": [f"C{c}" for c in range(clinics)],
    }
    index = {"patient": patient_of_obs, "therapist": therapist_of_obs}
    if clinics:
        index["clinic"] = (np.arange(n_therapists) % clinics)[therapist_of_obs]
    shape = (chains, draws)
    beta = np.array(list(truth.beta.values()))
    posterior: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        names.BETA: (("chain", "draw", "term"), beta + spread * rng.normal(size=(*shape, beta.size)))
    }
    eta = x @ beta
    coords: dict[str, object] = {
        "chain": np.arange(chains),
        "draw": np.arange(draws),
        "term": terms,
        "obs": np.arange(n_obs),
    }
    constant: dict[str, tuple[tuple[str, ...], np.ndarray]] = {names.DESIGN_X: (("obs", "term"), x)}
    random = []
    for level in levels:
        labels = list(truth.sd[level])
        sd = np.array([truth.sd[level][label] for label in labels])
        q = sd.size
        corr = np.full((q, q), truth.corr.get(level, 0.0))
        np.fill_diagonal(corr, 1.0)
        effect = rng.multivariate_normal(np.zeros(q), corr * np.outer(sd, sd), size=len(units[level]))
        z = np.stack([columns[label] for label in labels], axis=1)
        eta = eta + (z * effect[index[level]]).sum(axis=1)
        dim = names.term_dim(level)
        noisy = sd * np.exp(spread * rng.normal(size=(*shape, q)))
        posterior[names.sd(level)] = (("chain", "draw", dim), noisy)
        if q > 1:
            posterior[names.corr(level)] = (
                ("chain", "draw", dim, dim + names.AUX),
                _corr_draws(corr, shape, spread, rng),
            )
            coords[dim + names.AUX] = labels
        noise = rng.normal(size=(*shape, len(units[level]), q)) * sd * 0.4
        posterior[names.effect(level)] = (("chain", "draw", level, dim), effect + noise)
        constant[names.design_z(level)] = (("obs", dim), z)
        coords[dim] = labels
        random.append({"level": level, "terms": labels, "correlated": q > 1, "centred": None})
    for level, of_obs in index.items():
        if units[level]:
            coords[level] = units[level]
            constant[names.group_of_obs(level)] = (("obs",), of_obs)
    constant[names.parent_of_unit("patient", "therapist")] = (("patient",), therapist_of_patient)
    constant[names.SESSION_OF_OBS] = (("obs",), session + 1)
    constant[names.TIME_OF_OBS] = (("obs",), session.astype(float))
    if family in ("gaussian", "student"):
        posterior[names.SIGMA] = (("chain", "draw"), truth.sigma * np.exp(0.3 * spread * rng.normal(size=shape)))
        y = eta + truth.sigma * rng.normal(size=n_obs)
    else:
        middle = eta.mean()
        posterior[names.BETA][1][..., terms.index("Intercept")] -= middle
        y = (eta - middle + rng.logistic(size=n_obs) > 0).astype(float)
    if family == "student":
        posterior[names.NU] = (("chain", "draw"), np.full(shape, 6.0) + spread * rng.normal(size=shape))
    if residual == "ar1":
        posterior[names.PHI] = (("chain", "draw"), np.clip(0.4 + 0.1 * spread * rng.normal(size=shape), -0.9, 0.9))
    return assemble(
        posterior=posterior,
        constant=constant,
        coords=coords,
        y=y,
        spec={
            "kind": "process",
            "outcome": "phq9",
            "family": family,
            "residual": residual,
            "responses": [{"column": "phq9", "family": family, "terms": []}],
            "random": random,
        },
        terms=[term_entry(label) for label in terms],
        seed=seed,
    )


def term_entry(label: str) -> dict[str, object]:
    role = {"Intercept": "intercept", "time": "time"}.get(label, "common_factor")
    column = label.partition(".")[0] if "." in label else ("" if label == "Intercept" else label)
    factors = [] if label == "Intercept" else [{"column": column, "part": part_of(label), "lag": 0, "basis": None}]
    return {"label": label, "role": role, "part": part_of(label), "column": column, "factors": factors}


def assemble(
    *,
    posterior: Mapping[str, tuple[tuple[str, ...], np.ndarray]],
    constant: Mapping[str, tuple[tuple[str, ...], np.ndarray]],
    coords: Mapping[str, object],
    y: np.ndarray,
    spec: Mapping[str, object],
    terms: Sequence[Mapping[str, object]],
    seed: int,
) -> xr.DataTree:
    """Put the groups together; each carries the coordinates of its own dims."""

    def dataset(variables: Mapping[str, tuple[tuple[str, ...], np.ndarray]]) -> xr.Dataset:
        dims = {dim for of_variable, _ in variables.values() for dim in of_variable}
        return xr.Dataset(dict(variables), coords={name: values for name, values in coords.items() if name in dims})

    chains, draws = next(iter(posterior.values()))[1].shape[:2]
    rng = np.random.default_rng(seed + 1)
    stats = {
        "diverging": (("chain", "draw"), np.zeros((chains, draws), dtype=bool)),
        "energy": (("chain", "draw"), rng.normal(size=(chains, draws))),
        "n_steps": (("chain", "draw"), np.full((chains, draws), 15)),
        "step_size": (("chain", "draw"), np.full((chains, draws), 0.4)),
        "depth": (("chain", "draw"), np.full((chains, draws), 4)),
        "maxdepth_reached": (("chain", "draw"), np.zeros((chains, draws), dtype=bool)),
    }
    tree = xr.DataTree.from_dict(
        {
            names.POSTERIOR: dataset(posterior),
            names.SAMPLE_STATS: dataset(stats),
            names.OBSERVED_DATA: dataset({"y": (("obs",), y)}),
            names.CONSTANT_DATA: dataset(constant),
        }
    )
    tree.attrs = {
        names.ATTR_VERSION: "0.1.0",
        names.ATTR_SPEC: json.dumps(dict(spec)),
        names.ATTR_ENGINE: "collapsed",
        names.ATTR_SEED: seed,
        names.ATTR_SAMPLER: "nutpie",
        "psymech_terms": json.dumps(list(terms)),
    }
    return tree


def _corr_draws(corr: np.ndarray, shape: tuple[int, int], spread: float, rng: np.random.Generator) -> np.ndarray:
    """Symmetric noise off the diagonal, small enough to stay a correlation matrix for two terms."""
    q = corr.shape[0]
    noise = np.clip(0.5 * spread * rng.normal(size=(*shape, q, q)), -0.3, 0.3)
    noise = np.triu(noise, 1)
    return corr + noise + np.swapaxes(noise, -1, -2)


def two_response_tree(tree: xr.DataTree) -> xr.DataTree:
    """Stack a tree with itself: response phq9 as it is, response gad7 with halved effects; labels carry the
    response."""
    old = {name: tree[name].to_dataset() for name in tree.children}
    n = old[names.CONSTANT_DATA].sizes["obs"]

    def stack(data: xr.Dataset) -> xr.Dataset:
        out = {}
        for name, da in data.data_vars.items():
            dims = [d for d in da.dims if str(d).endswith("term") and "obs" in da.dims]
            if dims:
                a = da.values
                zero = np.zeros_like(a)
                out[name] = (da.dims, np.block([[a, zero], [zero, a]]))
            elif "obs" in da.dims:
                out[name] = (da.dims, np.concatenate([da.values, da.values]))
            else:
                out[name] = (da.dims, da.values)
        return xr.Dataset(out)

    def labels(values: np.ndarray) -> list[str]:
        return [f"phq9~{v}" for v in values] + [f"gad7~{v}" for v in values]

    draws = old[names.POSTERIOR]
    post = {}
    coords: dict[str, object] = {}
    for name, da in draws.data_vars.items():
        axes = [i for i, d in enumerate(da.dims) if "term" in str(d)]
        for i in axes:
            coords[str(da.dims[i])] = labels(draws[da.dims[i]].values)
        if str(name).startswith("corr"):
            a, zero = da.values, np.zeros_like(da.values)
            joint = np.concatenate([np.concatenate([a, zero], axis=-1), np.concatenate([zero, a], axis=-1)], axis=-2)
            post[name] = (da.dims, joint)
        elif name == names.SIGMA:
            post[name] = (("chain", "draw", "response"), np.stack([da.values, da.values / 2], axis=-1))
        else:
            post[name] = (da.dims, np.concatenate([da.values, da.values / 2], axis=-1))
    for level in ("patient", "therapist"):
        coords[level] = draws[level].values
    coords["response"] = ["phq9", "gad7"]
    coords |= {"chain": draws["chain"].values, "draw": draws["draw"].values}
    constant = stack(old[names.CONSTANT_DATA])
    constant[names.RESPONSE_OF_OBS] = ("obs", np.repeat([0, 1], n))
    spec = json.loads(tree.attrs[names.ATTR_SPEC])
    spec["responses"] = [{"column": c, "family": "gaussian", "terms": []} for c in ("phq9", "gad7")]
    terms = json.loads(tree.attrs["psymech_terms"])
    doubled = [{**t, "label": f"{r}~{t['label']}"} for r in ("phq9", "gad7") for t in terms]
    new = xr.DataTree.from_dict(
        {
            names.POSTERIOR: xr.Dataset(post, coords=coords),
            names.SAMPLE_STATS: old[names.SAMPLE_STATS],
            names.OBSERVED_DATA: stack(old[names.OBSERVED_DATA]),
            names.CONSTANT_DATA: constant,
        }
    )
    new.attrs = {**tree.attrs, names.ATTR_SPEC: json.dumps(spec), "psymech_terms": json.dumps(doubled)}
    return new
