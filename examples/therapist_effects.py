"""What a service can say about its therapists: effects with their uncertainty, ranks, caseloads, predictions, change.

Run it as a script, or cell by cell, on the simulated study that comes with psymech.
"""

# %% [markdown]
# # What a service can say about its therapists
#
# How far each therapist is from the average, how sure one can be, and what follows for ranks and caseloads. The study
# comes with psymech and is **simulated**.

# %%
import os
import textwrap

import psymech as psm

DRAWS = int(os.environ.get("PSYMECH_EXAMPLE_DRAWS", "1000"))  # draws a chain; fewer for a quick look

data = psm.load_example("process_study")
spec = psm.growth("phq9", shape="log", random={"patient": ["time"], "therapist": ["time"]})
tree = psm.fit(spec, data, draws=DRAWS, tune=DRAWS, seed=1, progressbar=False)
print(psm.check_sampling(tree))

# %% [markdown]
# How much of the differences lies between therapists depends on what is counted: one session, or one outcome a
# patient. And in the course rather than the level it is another share again.

# %%
for per in ("session", "patient"):
    share = psm.variance_partition(tree, per=per)["share"].sel(level="therapist")
    low, middle, high = (100 * share.quantile([0.055, 0.5, 0.945])).round(0).values
    print(f"Therapists' share of the variance of one outcome per {per}: {middle:.0f}% [{low:.0f}, {high:.0f}].")
change = psm.slope_share(tree, term="time")
print(f"Of the differences in the course, {100 * float(change.median()):.0f}% lie between therapists.")

# %% [markdown]
# Each therapist with the interval, the raw mean beside the shrunken one, and how well these data tell therapists apart.
# Low scores are good.

# %%
table = psm.summarize_therapists(tree, term="time", higher_is_better=False)
print(table.sort_values("mean").round(2).to_string())
better = psm.exceedance(tree, term="time", threshold=-0.5, direction="below")
worse = psm.exceedance(tree, term="time", threshold=0.5)
sure = (better > 0.9) | (worse > 0.9)
names = ", ".join(str(k) for k in sure["therapist"].values[sure.values]) or "nobody"
print(f"Rankability: {float(psm.rankability(tree, term='time')):.2f}.")
print(f"Off the average slope by 0.5 with probability above 0.9: {names}.")
print(psm.caseload_table(tree).round(1).to_string())

# %% [markdown]
# The same sessions for this therapist's patient, the next one, and a therapist not yet seen.

# %%
patient = data.sessions["patient"].iloc[0]
rows = data.sessions[data.sessions["patient"] == patient]
for target in ("this_therapist", "new_patient", "new_therapist", "average_therapist"):
    last = psm.predict(tree, rows, target=target, seed=1).isel(obs=-1)
    print(f"{target:18s} last session of {patient}: {float(last.mean()):5.1f}, SD {float(last.std()):.1f}")

# %% [markdown]
# Who has truly changed? Observed change beyond measurement error, and the posterior of the change behind it.

# %%
phq9 = data.sessions.groupby("patient")["phq9"]
observed = psm.reliable_change(phq9.first(), phq9.last(), sd=float(phq9.first().std()), reliability=0.85, cutoff=10)
true = psm.true_change(tree, threshold=4, cutoff=10)
print(observed["status"].value_counts().to_string())
improved = int((true["p_improved"] > 0.9).sum())
print(f"Improved by 4 points or more with probability above 0.9: {improved} of {true.sizes['patient']} patients.")

# %% [markdown]
# Events that can be read off as the sessions come in.

# %%
gains = psm.sudden_gains(data, "phq9", cutoff=5)
early = psm.early_response(data, "phq9", by=4, percent=20)
print(f"{len(gains)} sudden gains in {gains['patient'].nunique()} patients.")
print(
    f"{int(early['responded'].sum())} of {int(early['responded'].notna().sum())} patients had responded by session 4."
)

# %% [markdown]
# ## In words

# %%
widest = int((table["rank_high"] - table["rank_low"]).median())
who = f"only {names} can be told" if sure.any() else "nobody can be told"
print(
    textwrap.fill(
        f"In this service {who} apart from the average course by half a point of the PHQ-9 per step of log time with a "
        f"probability above 0.9. The interval of a typical therapist's rank spans {widest} of {len(table)} places: the "
        "figures support a conversation about single therapists, and no league table.",
        100,
    )
)
