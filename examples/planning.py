"""How many therapists does a study need? Simulate it at several sizes and look at the intervals.

Run it as a script, or cell by cell in an editor that knows the percent format.
"""

# %% [markdown]
# # Planning a study: how many therapists?
#
# Process studies have many sessions and few therapists, and what is said about therapists rests on the latter. Before
# gathering data, simulate the study at several sizes with the effects one expects, and look at how wide the intervals
# will be. Two of the plans have 240 patients: eight therapists with thirty each, or 24 with ten.

# %%
import os
import textwrap

import pandas as pd
import xarray as xr

import psymech as psm
from psymech.simulation import Sizes, simulate

DRAWS = int(os.environ.get("PSYMECH_EXAMPLE_DRAWS", "1000"))  # draws a chain; fewer for a quick look
STUDIES = int(os.environ.get("PSYMECH_EXAMPLE_STUDIES", "3"))  # simulated studies per plan; use 100 for a real plan
PLANS = [(8, 10), (8, 30), (24, 10), (60, 10)]  # therapists, patients of each
TRUTH = {"sd_therapist": {"Intercept": 1.0}, "sd_patient": {"Intercept": 2.0, "time": 0.2}, "sigma": 2.5}

spec = psm.growth("distress", random={"patient": ["time"]})


def width(draws: xr.DataArray) -> float:
    """Return the width of the 89% interval."""
    return float(draws.quantile(0.945) - draws.quantile(0.055))


# %%
rows = []
for therapists, patients in PLANS:
    for number in range(STUDIES):
        sizes = Sizes(therapists=therapists, patients=patients, sessions=10)
        study = simulate(spec, sizes=sizes, truth=TRUTH, seed=1000 * therapists + 10 * patients + number)
        tree = psm.fit(spec, study.data(), draws=DRAWS, tune=DRAWS, seed=number, progressbar=False)
        rows.append(
            {
                "plan": f"{therapists} x {patients}",
                "width of the SD": width(tree["posterior"]["sd_therapist"].sel(therapist_term="Intercept")),
                "width of the share, %": 100
                * width(psm.variance_partition(tree, per="patient")["share"].sel(level="therapist")),
                "reliability": float(psm.reliability(tree).mean()),
            }
        )
table = pd.DataFrame(rows).groupby("plan", sort=False).mean()
print(f"True SD between therapists 1.0; means over {STUDIES} simulated studies; widths of 89% intervals:")
print(table.round(2).to_string())

# %% [markdown]
# Two wishes pull against each other. The SD between therapists is learned from therapists, so many of them. A statement
# about *one* therapist is learned from that therapist's patients, so many patients each. `minimum_caseload` says how
# many patients a stated reliability needs.

# %%
needed = psm.minimum_caseload(tree, reliability=0.7)
print(f"Patients per therapist for a reliability of 0.7, from the last study: about {float(needed.median()):.0f}")

# %% [markdown]
# ## In a sentence

# %%
small, deep, broad, large = table.index
sd, reliability = table["width of the SD"], table["reliability"]
print(
    textwrap.fill(
        f"With a true SD of 1 point between therapists, 8 therapists with 10 patients each leave an 89% interval that "
        f"is {sd[small]:.1f} points wide. Three times the patients make it {sd[deep]:.1f} if the same therapists see "
        f"them and {sd[broad]:.1f} if new ones do; 60 therapists make it {sd[large]:.1f}. One therapist's effect is "
        f"measured with a reliability of about {reliability[deep]:.2f} by 30 patients and of {reliability[large]:.2f} "
        "by ten: new therapists tell more about therapists in general, and nothing more about any one of them.",
        100,
    )
)
