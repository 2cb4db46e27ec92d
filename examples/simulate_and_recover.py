"""Simulate a study with known truth, fit it, and see what came back.

Run it as a script, or cell by cell. A rehearsal like this, with the sizes of one's own study, shows before any data are
gathered which questions they will be able to answer.
"""

# %% [markdown]
# # A rehearsal: what will my study be able to tell?
#
# The specification is the one to be used later on the real data.

# %%
import os
import textwrap

import numpy as np
import pandas as pd

import psymech as psm
from psymech.simulation import Predictor, Sizes, simulate

DRAWS = int(os.environ.get("PSYMECH_EXAMPLE_DRAWS", "1000"))  # draws a chain; fewer for a quick look

spec = psm.process(
    "distress",
    techniques=["exposure"],
    common_factors=["alliance"],
    slopes={"therapist": ["alliance"]},
    lag=1,
)

# %% [markdown]
# Sizes as planned: therapists, patients, ragged sessions. Truth as one expects it, in points of the outcome; whatever
# is not named has a default.

# %%
sizes = Sizes(therapists=15, patients=6, sessions=10, patients_spread=3, sessions_spread=4, dropout=0.02, gaps=0.05)
study = simulate(
    spec,
    sizes=sizes,
    predictors={"alliance": Predictor(mean=3.7, within=0.4, patient=0.4, therapist=0.2)},
    truth={
        "beta": {"alliance.within": -0.9, "alliance.patient": -1.5, "exposure.within": -0.3},
        "sd_therapist": {"Intercept": 1.0, "alliance.within": 0.3},
        "sigma": 2.5,
    },
    seed=1,
)
print(study.data())

# %%
tree = psm.fit(spec, study.data(), draws=DRAWS, tune=DRAWS, seed=1, progressbar=False)
print(psm.check_sampling(tree))

# %% [markdown]
# Fixed effects beside the truth. About nine in ten intervals of 89% should hold their true value, if the model is
# the right one.

# %%
table = psm.effects(tree).loc[list(study.truth["term"].values)]
low, high = (column for column in table.columns if column.startswith(("eti", "hdi")))
table = pd.DataFrame(
    {"truth": study.truth["beta"].to_series(), "mean": table["mean"], low: table[low], high: table[high]}
)
print(table.round(2).to_string())
inside = int(((table[low] <= table["truth"]) & (table["truth"] <= table[high])).sum())
print(f"\n{inside} of {len(table)} intervals hold the true value.")

# %% [markdown]
# Therapists: how well does the order of the posterior means follow the true order?

# %%
estimate = psm.summarize_therapists(tree)
truth = study.truth["u_therapist"].sel(therapist_term="Intercept").to_series()
order = np.corrcoef(estimate["mean"].rank(), truth.loc[estimate.index].rank())[0, 1]
print(f"\nThe order of {len(estimate)} therapists by their estimates correlates {order:.2f} with the true order.")

# %%
found = psm.variance_partition(tree)["share"].mean(("chain", "draw")).to_series()
shares = pd.DataFrame({"truth": study.truth["variance_partition"].to_series(), "estimate": found})
print("\nShares of the variance of one session's outcome:")
print(shares.round(3).to_string())

# %% [markdown]
# ## In words

# %%
width = table.loc["alliance.within", high] - table.loc["alliance.within", low]
sure = "well enough to compare therapists" if order > 0.8 else "roughly at best: single therapists should not be ranked"
print(
    textwrap.fill(
        f"A study of {len(estimate)} therapists and {study.data().n_patients} patients like this one would place the "
        f"effect of a better alliance within an interval {width:.1f} points of distress wide (the true effect is "
        f"{table.loc['alliance.within', 'truth']:.1f}), and would order its therapists {sure} (correlation with the "
        f"true order {order:.2f}). One simulated study is one draw: repeat it with other seeds "
        "before deciding on sizes.",
        100,
    )
)
