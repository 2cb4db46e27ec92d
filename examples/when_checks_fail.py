"""Three ways in which a fit goes wrong, how each shows, and what to do about it.

Run it as a script, or cell by cell in an editor that knows the percent format.
"""

# %% [markdown]
# # When checks fail: too few draws, a wrong model, too few therapists
#
# Three things go wrong in practice, and they look different. The data are **simulated**, so that it is known what is
# wrong each time.

# %%
import os
import textwrap
import warnings

import psymech as psm
from psymech.simulation import Sizes, simulate

DRAWS = int(os.environ.get("PSYMECH_EXAMPLE_DRAWS", "1000"))  # draws a chain; fewer for a quick look

carried_over = psm.growth("distress", shape="log", residual="ar1")
study = simulate(
    carried_over,
    sizes=Sizes(therapists=25, patients=6, sessions=12),
    truth={"phi": 0.6, "sigma": 2.0, "sd_therapist": {"Intercept": 1.0}},
    seed=3,
)
data = study.data()

# %% [markdown]
# ## 1. The sampler has not arrived: too few draws
#
# Twenty draws after twenty steps of warm-up are nobody's choice, but they show what a verdict looks like. The remedy
# is in the text; a report made from such a fit withholds its numbers.

# %%
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the fit warns too; here the report is what we look at
    hasty = psm.fit(carried_over, data, draws=20, tune=20, seed=1, progressbar=False)
print(psm.check_sampling(hasty))

# %% [markdown]
# ## 2. The sampler has arrived, at the wrong model
#
# With independent residuals every figure of the sampler is fine. What is wrong shows when the model is asked to make
# data like those it saw: neighbouring sessions are more alike than it can explain.

# %%
independent = psm.fit(psm.growth("distress", shape="log"), data, draws=DRAWS, tune=DRAWS, seed=1, progressbar=False)
print(psm.check_sampling(independent).verdict)
before = psm.check_model(independent)
print(before)

# %%
mended = psm.fit(carried_over, data, draws=DRAWS, tune=DRAWS, seed=1, progressbar=False)
after = psm.check_model(mended)
print(after)
sd_before, sd_after = (
    float(tree["posterior"]["sd_therapist"].sel(therapist_term="Intercept").median()) for tree in (independent, mended)
)

# %% [markdown]
# ## 3. The design cannot carry the question: too few therapists
#
# No sampler and no longer run can mend this one, so it is said before anything is sampled.

# %%
few = simulate(carried_over, sizes=Sizes(therapists=4, patients=20, sessions=10), seed=5).data()
findings = psm.check_design(few, carried_over)
print(findings)

# %% [markdown]
# ## Which engine, which sampler
#
# `fit` takes the collapsed engine wherever it is exact, and says so. The explicit engine is there for binary and
# ordinal outcomes, Student residuals, crossed therapists, and for your own changes to the PyMC model; nutpie is the
# default sampler of both.

# %%
for tree in (independent, mended):
    print(tree.attrs["engine"], "-", tree.attrs["engine_reason"])

# %% [markdown]
# ## In a sentence

# %%
worst = [check.name for check in before.checks if check.status == "failed"]
still = [check.name for check in after.checks if check.status == "failed"]
print(
    textwrap.fill(
        f"The model with independent residuals passed every check of the sampler and failed {len(worst)} of the model "
        f"({', '.join(worst) or 'none'}); with residuals that carry over, {len(still)} fail. The SD between therapists "
        f"goes from {sd_before:.2f} to {sd_after:.2f}. A clean sampler says that the sum was done right, not that it "
        "was the right sum.",
        100,
    )
)
