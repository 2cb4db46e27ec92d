"""Which ingredient goes with which outcome? Techniques, common factors, five outcomes before and after, therapists.

Run it as a script, or cell by cell in an editor that knows the percent format. It prints tables and ends with
sentences that are computed from the fits.
"""

# %% [markdown]
# # From techniques to common factors to five outcomes
#
# The study that comes with the package is **simulated**: sessions of patients of 20 therapists, rated for techniques
# and common factors, with psychopathology, social functioning, resources, coping and quality of life measured before
# and after. Three questions: do techniques go with the alliance of the same session; which ingredient goes with
# which outcome; and what share of the differences between outcomes goes with each.

# %%
import os
import textwrap

import pandas as pd
import xarray as xr

import psymech as psm

DRAWS = int(os.environ.get("PSYMECH_EXAMPLE_DRAWS", "1000"))  # draws a chain; fewer for a quick look
TECHNIQUES = ["exposure", "restructuring"]
COMMON_FACTORS = ["alliance", "empathy"]
OUTCOMES = ["psychopathology", "social_functioning", "resources", "coping", "quality_of_life"]
BETTER = {"psychopathology_post": False}  # the other four are better when higher
SAID = ["techniques", "common_factors", "therapist"]
CERTAIN = 0.95  # from this probability on, a direction is called clear


# %% tags=["hide-input"]
def heading(text: str) -> None:
    """Print a heading."""
    print(f"\n{text}\n{'=' * len(text)}\n", flush=True)


def show(table: pd.DataFrame, digits: int = 2) -> None:
    """Print a table."""
    print(table.to_string(float_format=lambda value: f"{value:.{digits}f}"), flush=True)


def say(text: str) -> None:
    """Print what a result means, in words."""
    print("\n" + textwrap.fill(text, 100), flush=True)


def plain(label: str) -> str:
    """Say a column's name in words."""
    return label.removesuffix("_post").removesuffix(".patient").replace("_", " ")


def figure(draws: xr.DataArray, digits: int = 2, unit: str = "") -> str:
    """Say a number with its 89% interval."""
    low, high = (float(draws.quantile(p)) for p in (0.055, 0.945))
    return f"{float(draws.mean()):.{digits}f}{unit} (89% interval {low:.{digits}f} to {high:.{digits}f})"


# %%
study = psm.load_example("process_study")
print(study)

# %% [markdown]
# ## 1. Techniques and the alliance, session by session
#
# The alliance of a session from the techniques of the same session; `within` compares a patient's sessions with each
# other. Therapists may differ in what exposure does to the alliance.

# %%
heading("1. Techniques and the alliance of the same session")
alliance = psm.fit(
    psm.process("alliance", techniques=TECHNIQUES, slopes={"therapist": ["exposure"]}),
    study,
    draws=DRAWS,
    tune=DRAWS,
    seed=1,
    progressbar=False,
)
print(f"Sampling: {psm.check_sampling(alliance).verdict}\n")
show(psm.effects(alliance), 3)

# %% [markdown]
# ## 2. Five outcomes in one model
#
# Each score after treatment is adjusted for the score before. Techniques and common factors are the patients' means
# over their sessions, against the therapist's other patients (`patient`) and between therapists (`therapist`).
# Therapists' effects correlate over the five outcomes, and so do the residuals of a patient.

# %%
heading("2. Five outcomes after treatment")
spec = psm.outcomes(
    OUTCOMES, techniques=TECHNIQUES, common_factors=COMMON_FACTORS, interactions=[("exposure", "alliance")]
)
tree = psm.fit(spec, study, draws=DRAWS, tune=DRAWS, seed=1, progressbar=False)
print(f"Sampling: {psm.check_sampling(tree).verdict}\n")
ingredients = [f"{name}.patient" for name in (*TECHNIQUES, *COMMON_FACTORS)]
effects = psm.standardized_effects(tree, ingredients=ingredients, higher_is_better=BETTER)
print("SD of the outcome per SD of the ingredient, between patients of one therapist; above zero is better:\n")
show(effects.mean(("chain", "draw")).to_pandas().T)
print("\nProbability that it is above zero:\n")
show((effects > 0).mean(("chain", "draw")).to_pandas().T)

# %% [markdown]
# ## 3. Is it this ingredient, and this outcome?
#
# A clear effect on one outcome beside an unclear one on another is no difference yet. The contrast is.

# %%
heading("3. Contrasts")
across = psm.contrasts(tree, ingredients=ingredients, higher_is_better=BETTER)
between = psm.contrasts(tree, across="ingredients", ingredients=ingredients, higher_is_better=BETTER)
both = pd.concat([across, between], ignore_index=True)
both["certainty"] = both["p_above_zero"].where(both["p_above_zero"] > 0.5, 1 - both["p_above_zero"])
show(both.sort_values("certainty", ascending=False).head(8).fillna(""))
pooled = psm.standardized_effects(tree, ingredients=ingredients, higher_is_better=BETTER, pool=True)
print("\nPooled partially over the outcomes:\n")
show(pooled.mean(("chain", "draw")).to_pandas().T)

# %% [markdown]
# ## 4. Shares
#
# Of the differences between patients' scores after treatment. `if_unrelated` is what a source would show on average
# although it had nothing to do with the outcome: shares cannot be negative, so uncertainty lifts them.

# %%
heading("4. Shares of the differences in outcome, percent")
shares = psm.ingredient_shares(tree)
show(psm.summarize_shares(shares), 1)
print()
show(pd.DataFrame([share.as_dict() for share in psm.published_shares()])[["what", "of", "wording", "source"]])
say(shares.attrs["what_it_is_not"])

# %% [markdown]
# ## 5. In words

# %%
heading("5. In words")
path = alliance["posterior"]["beta"].sel(term="exposure.within")
slopes = alliance["posterior"]["sd_therapist"].sel(therapist_term="exposure.within")
side = "higher" if float(path.mean()) > 0 else "lower"
say(
    "In a session with one point more exposure than is usual for the patient, the alliance is "
    f"{figure(path, 3)} points {side}; over therapists this differs with an SD of {figure(slopes, 3)}."
)
for response in effects["response"].values:
    one = effects.sel(response=response)
    sure = (one > 0).mean(("chain", "draw"))
    clear = [plain(str(i)) for i in sure["ingredient"].values if float(sure.sel(ingredient=i)) > CERTAIN]
    strongest = str(one.mean(("chain", "draw")).idxmax("ingredient").item())
    parts = {source: 100 * shares["share"].sel(response=response, source=source) for source in SAID}
    who = f"more {' and '.join(clear)}" if clear else "no single ingredient"
    say(
        f"{plain(str(response)).capitalize()}: a better outcome clearly goes with {who}. The largest coefficient is "
        f"that of {plain(strongest)}, {figure(one.sel(ingredient=strongest))} SD per SD. Of the differences after "
        f"treatment, {figure(parts['techniques'], 0, '%')} go with techniques, "
        f"{figure(parts['common_factors'], 0, '%')} with common factors, and {figure(parts['therapist'], 0, '%')} with "
        "therapists beyond that."
    )
clear_pairs = int((both["certainty"] > CERTAIN).sum())
by_chance = (1 - CERTAIN) * 2 * len(both)
largest = plain(str(pooled.mean(("chain", "draw", "response")).idxmax("ingredient").item()))
say(
    f"Of {len(both)} contrasts between outcomes or ingredients, {clear_pairs} are clear at {CERTAIN:.0%}; were all "
    f"effects the same, about {by_chance:.0f} would look so by chance. After pooling over outcomes the largest "
    f"coefficient is that of {largest}."
)
residuals = tree["posterior"]["corr_residual"].sel(response="psychopathology_post", response_aux="quality_of_life_post")
say(
    "What the model leaves open is shared by the outcomes: the residuals of psychopathology and quality of life "
    f"correlate {figure(residuals)}."
)
