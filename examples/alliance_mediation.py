"""Does exposure work through the alliance? Mediation at three levels, on the simulated study that psymech ships.

Run it as a script, or cell by cell. Every number printed is computed from the fits.
"""

# %% [markdown]
# # Technique, alliance, symptoms
#
# Exposure in a session may change the alliance of that session, and the alliance the symptoms reported at the next.
# Both paths may differ between patients and between therapists. The study comes with psymech and is **simulated**.

# %%
import os
import textwrap

import numpy as np
import pandas as pd

import psymech as psm
from psymech.simulation.mediation import MediationTruth, simulate_mediation

DRAWS = int(os.environ.get("PSYMECH_EXAMPLE_DRAWS", "1000"))  # draws a chain; fewer for a quick look
OPTIONS = {"draws": DRAWS, "tune": DRAWS, "seed": 1, "progressbar": False}

data = psm.load_example("process_study")
spec = psm.mediation(
    "phq9",
    treatment="exposure",
    mediators="alliance",
    random={"patient": ("a", "b", "c"), "therapist": ("a", "b")},
    lag=1,  # exposure and alliance of one session, symptoms of the next
)
tree = psm.fit(spec, data, **OPTIONS)
print(psm.check_sampling(tree))

# %%
with pd.option_context("display.width", 200, "display.max_columns", 12, "display.max_colwidth", 60):
    print(psm.mediation_table(tree).round(3))

# %% [markdown]
# ## Why not the product of the average paths
#
# Where patients with a larger a also have a larger b, the average of the products is larger than the product of the
# averages.

# %%
effects = psm.indirect_effects(tree).sel(mediator="alliance")
within = effects.sel(level="within")
indirect, product = float(within["indirect"].mean()), float(within["product_of_means"].mean())
print(f"Indirect effect within patients: {indirect:.3f} points of phq9 a unit of exposure.")
print(f"The product of the average paths would have said {product:.3f}, off by {product - indirect:+.3f}.")
for level in effects["level"].values:
    values = effects["indirect"].sel(level=level)
    low, high = np.quantile(values, [0.055, 0.945])
    print(f"{level:>9}: {float(values.mean()):+.3f}, 89% [{low:+.3f}, {high:+.3f}]")

# %% [markdown]
# ## Whose patients profit through the alliance?

# %%
own = psm.indirect_effects(tree, by="therapist")["indirect"].sel(mediator="alliance")
ordered = own.mean(("chain", "draw")).sortby(own.mean(("chain", "draw")))
most, least = (
    ", ".join(map(str, some)) for some in (ordered["therapist"].values[:3], ordered["therapist"].values[-3:])
)
print(f"Most relief through the alliance: {most}. Least: {least}.")

# %% [markdown]
# ## Trend in or out
#
# One switch: `time=None` keeps the trend in the paths. Alliance and symptoms both change over treatment; what they
# share only because time passes is no mechanism.

# %%
kept = psm.fit(
    psm.mediation(
        "phq9",
        treatment="exposure",
        mediators="alliance",
        random={"patient": ("a", "b", "c"), "therapist": ("a", "b")},
        lag=1,
        time=None,
    ),
    data,
    **OPTIONS,
)
left = psm.indirect_effects(kept).sel(level="within", mediator="alliance")
with_trend, bare = float(left["indirect"].mean()), float(left["product_of_means"].mean())
print(f"Trend removed: {indirect:.3f}. Trend left in: {with_trend:.3f}.")
print(f"There the product of the average paths would have been off by {bare - with_trend:+.3f}.")

# %% [markdown]
# ## How strong would a confounder have to be?
#
# The correlation of the residuals of alliance and symptoms at which the interval of the indirect effect touches zero.

# %%
print(
    psm.mediation_sensitivity(tree)[["level", "indirect", "rho_zero", "rho_interval"]].round(3).to_string(index=False)
)

# %% [markdown]
# ## Observed means are unreliable
#
# In a large study simulated from true (latent) means, with five sessions a patient, the slopes between patients of
# observed means lie on the way to the slopes within patients. With latent means they do not.

# %%
NOTHING = {"a": 0.0, "b": 0.0, "c": 0.0}
truth = MediationTruth(
    within={"a": 0.1, "b": 0.1, "c": 0.0},
    patient={"a": 0.8, "b": 0.9, "c": 0.0},
    sd_patient=NOTHING,
    sd_therapist=NOTHING,
    intercept_sd_patient=(0.4, 0.4),
)
study = simulate_mediation(therapists=60, patients=30, sessions=5, truth=truth, means="latent", seed=1)
print(f"True indirect effect between patients: {truth.indirect['patient']:.2f}")
for decompose in ("observed", "latent"):
    varying = {"patient": ()} if decompose == "observed" else None
    one = psm.fit(
        psm.mediation("y", treatment="x", mediators="m", random=varying, decompose=decompose, time=None),
        study.data,
        **OPTIONS,
    )
    values = psm.indirect_effects(one)["indirect"].sel(level="patient", mediator="m")
    low, high = np.quantile(values, [0.055, 0.945])
    print(f"{decompose:>9} means: {float(values.mean()):.2f}, 89% [{low:.2f}, {high:.2f}]")

# %%
figure = psm.plot_paths(tree)

# %% [markdown]
# ## In words

# %%
low, high = np.quantile(within["indirect"], [0.055, 0.945])
share = float((within["indirect"] < 0).mean())
side = "lower" if indirect < 0 else "higher"
one_sign = min(share, 1 - share)
print(
    textwrap.fill(
        "After a session with one point more exposure than the patient is used to, symptoms are "
        f"{abs(indirect):.2f} points of the PHQ-9 {side} at the next session by way of the alliance (89% interval of "
        f"the change {low:+.2f} to {high:+.2f}; probability of the other direction {one_sign:.2f}). That holds if "
        "nothing else moves alliance and symptoms together from session to session, which these data cannot tell.",
        100,
    )
)
