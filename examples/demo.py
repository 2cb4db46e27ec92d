"""Therapists, patients, sessions: two studies from table to figures.

Run it as a script, or cell by cell in an editor that knows the percent format. It writes figures and fitted trees to
``demo_output`` and ends by saying where.
"""

# %% [markdown]
# # What does psymech do?
#
# Sessions belong to patients, patients to therapists. Three questions follow: what goes with improvement from
# one session to the next, how much do therapists differ, and how sure can one be about a single therapist?
# This script answers them for two studies: a **simulated** process study of 20 therapists that comes with the
# package, and a real trial of computerised cognitive behaviour therapy, Beat the Blues.

# %%
import os
import sys
import textwrap
import time
from pathlib import Path

import pandas as pd
import xarray as xr

import psymech as psm

START = time.perf_counter()
OUTPUT = Path("demo_output")
OUTPUT.mkdir(exist_ok=True)
DRAWS = int(os.environ.get("PSYMECH_EXAMPLE_DRAWS", "1000"))  # draws a chain; fewer for a quick look
BAR = sys.stderr.isatty()  # the stages of a fit, where somebody is watching
SHOWN: list[Path] = []


# %% tags=["hide-input"]
def heading(text: str) -> None:
    """Print a heading."""
    print(f"\n{text}\n{'=' * len(text)}\n", flush=True)


def show(table: pd.DataFrame) -> None:
    """Print a table with two decimals."""
    print(table.to_string(float_format=lambda value: f"{value:.2f}"), flush=True)


def save(name: str, plot) -> None:
    """Write a figure and remember where."""
    path = OUTPUT / f"{name}.png"
    plot.savefig(path, bbox_inches="tight", dpi=130)
    SHOWN.append(path)


def say(text: str) -> None:
    """Print what a result means, in words."""
    print("\n" + textwrap.fill(f"In words: {text}", 100), flush=True)


def verdict(report: psm.SamplingReport) -> str:
    """Say whether the draws may be used."""
    return (
        "its draws passed every check"
        if report.ok
        else f"its draws are {report.verdict}: read what follows as a sketch"
    )


def draws_of(tree: xr.DataTree, term: str) -> xr.DataArray:
    """Posterior draws of a fixed effect."""
    return tree["posterior"]["beta"].sel(term=term)


def points(draws: xr.DataArray) -> str:
    """Say an effect in words: how many points lower or higher, with the 89% interval and how sure its direction is."""
    mean = float(draws.mean())
    low, high = (float(draws.quantile(p)) for p in (0.055, 0.945))
    side = "lower" if mean < 0 else "higher"
    sure = float((draws < 0).mean() if mean < 0 else (draws > 0).mean())
    interval = f"89% interval of the difference {low:+.1f} to {high:+.1f}"
    return f"{abs(mean):.1f} points {side} ({interval}; it is {side} with probability {sure:.2f})"


# %% [markdown]
# ## 1. The data, and whether they can carry the question
#
# One row a session. `check_design` tells what was found before anything is fitted: gaps, few therapists,
# predictors that do not vary at the level where they are asked to act.

# %%
heading("1. A simulated process study of 20 therapists")
study = psm.load_example("process_study")
print(study)

# %% [markdown]
# The model: depression (PHQ-9) at a session, from what happened in the session **before** (`lag=1`). Each
# rating is split into three parts: how this session differs from the patient's other sessions (`within`), how
# the patient differs from the therapist's other patients (`patient`), and how the therapist differs from
# other therapists (`therapist`). The effect of alliance may differ between patients and between therapists.

# %%
process = psm.process(
    "phq9",
    techniques=["exposure", "restructuring"],
    common_factors=["alliance", "empathy"],
    covariates=["severity_pre"],
    slopes={"patient": ["alliance"], "therapist": ["alliance"]},
    lag=1,
)
print()
print(psm.check_design(study, process))

# %%
tree = psm.fit(process, study, draws=DRAWS, tune=DRAWS, seed=1, progressbar=BAR)
sampling = psm.check_sampling(tree)
print(sampling)
say(
    f"{tree['observed_data'].sizes['obs']} of {study.n_sessions} sessions of {study.n_patients} patients of "
    f"{study.n_therapists} therapists have a session before them and enter the model; {verdict(sampling)}."
)

# %% [markdown]
# ## 2. What goes with improvement?
#
# One row a term, in points of the PHQ-9 per point of the rating. Rows such as `alliance.patient -
# alliance.within` are contextual effects: is it the better hour, or the patient who is in better hours
# throughout?

# %%
heading("2. What goes with improvement")
show(psm.effects(tree))
say(
    "after a session in which the alliance was one point better than this patient's average, depression at the "
    f"next session was {points(draws_of(tree, 'alliance.within'))}."
)

# %% [markdown]
# ## 3. How much do therapists differ, and who?
#
# The mean of each therapist is drawn towards the average, the more the fewer patients there are. Low is good
# here, so the ranks are turned round: rank 20 is the therapist with the lowest expected depression. Look at the
# intervals of the ranks before reading the table as a league.

# %%
heading("3. Therapists")
therapists = psm.summarize_therapists(tree, higher_is_better=False).sort_values("mean")
show(therapists)
share = 100 * psm.variance_partition(tree, per="patient")["share"].sel(level="therapist")
low, high = (float(share.quantile(p)) for p in (0.055, 0.945))
bounds = [column for column in therapists.columns if column.startswith(("eti", "hdi"))]
clear = int(((therapists[bounds[0]] > 0) | (therapists[bounds[1]] < 0)).sum())
first = therapists.iloc[0]
say(
    f"{float(share.mean()):.0f}% of the differences between patients' expected depression lie between therapists "
    f"(89% interval {low:.0f}% to {high:.0f}%), beyond what alliance, empathy and techniques explain. {clear} of "
    f"{len(therapists)} therapists can be told from the average. The therapist with the lowest scores, {first.name}, "
    f"may hold any rank from {first['rank_low']:.0f} to {first['rank_high']:.0f} of {len(therapists)} (the highest "
    "number is best)."
)
save("study_therapists", psm.plot_therapists(tree, higher_is_better=False))
save("study_trajectories", psm.plot_trajectories(tree))

# %% [markdown]
# ## 4. Where does the variance lie?

# %%
heading("4. Where the variance lies")
parts = psm.variance_partition(tree)["share"]
show(
    pd.DataFrame(
        {
            "percent of a session's variance": 100 * parts.mean(("chain", "draw")).to_series(),
            "5.5%": 100 * parts.quantile(0.055, ("chain", "draw")).to_series(),
            "94.5%": 100 * parts.quantile(0.945, ("chain", "draw")).to_series(),
        }
    )
)
by_level = parts.mean(("chain", "draw")).to_series().drop("residual")
largest = str(by_level.idxmax())
say(
    f"of what the model does not explain in a single score, {100 * float(parts.sel(level='residual').mean()):.0f}% is "
    f"change from session to session, and of the lasting differences most lie between {largest}s."
)
save("study_variance", psm.plot_variance_partition(tree))
psm.save(tree, OUTPUT / "study.nc")

# %% [markdown]
# ## 5. A real trial: Beat the Blues
#
# 100 patients, randomised to computerised cognitive behaviour therapy or usual treatment; the Beck Depression
# Inventory after 2, 3, 5 and 8 months. There are no therapists, so the model has two levels. Many patients
# were lost: the fit uses every score that was given, which is right if being lost depends only on what was
# seen before.

# %%
heading("5. A real trial: Beat the Blues")
trial = psm.load_example("beat_the_blues")
print(trial)
growth = psm.growth("bdi", covariates=["bdi_pre", "drug", "long_episode", "treatment"], random={"patient": []})
print()
print(psm.check_design(trial, growth))
trial_tree = psm.fit(growth, trial, draws=DRAWS, tune=DRAWS, seed=1, progressbar=BAR)
trial_sampling = psm.check_sampling(trial_tree)
print(trial_sampling)
print()
show(psm.effects(trial_tree))
say(
    f"the model rests on {trial_tree['observed_data'].sizes['obs']} scores, and {verdict(trial_sampling)}. With the "
    "same score before, antidepressants and length of illness, patients of Beat the Blues scored "
    f"{points(draws_of(trial_tree, 'treatment'))} than patients in usual treatment."
)
save("trial_trajectories", psm.plot_trajectories(trial_tree, level="patient"))
psm.save(trial_tree, OUTPUT / "trial.nc")

# %% [markdown]
# ## Where everything is

# %%
heading("Where everything is")
for path in (*SHOWN, OUTPUT / "study.nc", OUTPUT / "trial.nc"):
    print(path)
print(f"\nThe demo took {time.perf_counter() - START:.0f} seconds.")
