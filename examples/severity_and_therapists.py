"""Severity and therapist differences: a therapist slope, and the therapists' share as a function of severity.

Run it as a script, or cell by cell in an editor that knows the percent format.
"""

# %% [markdown]
# # Do therapists differ more with severely ill patients?
#
# In services the therapist often matters most where patients are worst off. In the model that is a slope: therapists
# differ in what a patient's severity does to the outcome, and then their share of the variance depends on severity.
# The study here is **simulated**, 40 therapists with 10 patients each, so that the answer is known.

# %%
import os
import textwrap

import pandas as pd

import psymech as psm
from psymech.simulation import Predictor, Sizes, simulate

DRAWS = int(os.environ.get("PSYMECH_EXAMPLE_DRAWS", "1000"))  # draws a chain; fewer for a quick look
SEVERITIES = [-2.0, -1.0, 0.0, 1.0, 2.0]  # SDs from the average patient

spec = psm.process("distress", covariates=["severity"], slopes={"therapist": ["severity"]})
study = simulate(
    spec,
    sizes=Sizes(therapists=40, patients=10, sessions=8, patients_spread=4, sessions_spread=3),
    predictors={"severity": Predictor(within=0, patient=1, therapist=0)},
    truth={
        "beta": {"Intercept": 12.0, "time": -0.4, "severity": 2.0},
        "sd_patient": {"Intercept": 3.0},
        "sd_therapist": {"Intercept": 1.0, "severity": 0.8},
        "corr_therapist": 0.3,
        "sigma": 2.5,
    },
    seed=4,
)
data = study.data()
print(data)

# %%
tree = psm.fit(spec, data, draws=DRAWS, tune=DRAWS, seed=1, progressbar=False)
print(psm.check_sampling(tree).verdict)
print(psm.effects(tree).round(2).to_string())

# %% [markdown]
# The therapists' share of the variance of a patient's expected outcome, as a function of severity. One number for all
# patients would hide this.

# %%
by_severity = psm.variance_partition(tree, at={"severity": SEVERITIES}, per="patient")
share = by_severity["share"].sel(level="therapist")
rows = {value: (100 * share.sel(severity=value).quantile([0.055, 0.5, 0.945])).values.round(1) for value in SEVERITIES}
print("Therapists' share, % of the variance of one expected outcome per patient:")
print(pd.DataFrame.from_dict(rows, orient="index", columns=["5.5%", "median", "94.5%"]).to_string())

# %% [markdown]
# Who is good with whom? The therapist's deviation for a severely ill patient is the intercept plus two slopes. A
# ranking for the average patient need not be the ranking for the severely ill.

# %%
level = psm.therapist_effects(tree)
slope = psm.therapist_effects(tree, term="severity")
average, severe = level.mean(("chain", "draw")), (level + 2 * slope).mean(("chain", "draw"))
print(
    pd.DataFrame({"average patient": average.to_pandas(), "severe patient": severe.to_pandas()})
    .sort_values("severe patient")
    .round(2)
    .head(8)
    .to_string()
)
agreement = float(average.to_pandas().corr(severe.to_pandas(), method="spearman"))

# %% [markdown]
# ## In a sentence

# %%
sd = tree["posterior"]["sd_therapist"].sel(therapist_term="severity")
low, middle, high = (float(sd.quantile(p)) for p in (0.055, 0.5, 0.945))
mild, hard = (float(share.sel(severity=value).median()) * 100 for value in (0.0, 2.0))
print(
    textwrap.fill(
        f"Therapists account for {mild:.0f}% of the differences between the expected outcomes of averagely ill "
        f"patients and for {hard:.0f}% among severely ill ones; per SD of severity their effect differs with an SD of "
        f"{middle:.2f} (89% interval {low:.2f} to {high:.2f}; the simulated truth is 0.80). The order of therapists "
        f"for severe patients agrees with that for average patients with a rank correlation of {agreement:.2f}, so who "
        "should see the severely ill cannot be read off the overall ranking.",
        100,
    )
)
