"""The only spelling of dimensions, variables and groups, with dims, meaning and unit of each.

Everything that writes or reads a fitted tree takes its names from here; nothing is parsed back out of a name.
"""

from typing import Final, Literal, get_args

Level = Literal["patient", "therapist", "clinic"]
LEVELS: Final[tuple[Level, ...]] = get_args(Level)  # lowest first; sessions are the rows below

Part = Literal["raw", "within", "patient", "therapist"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)

Membership = Literal["current", "multiple", "to date"]
MEMBERSHIPS: Final[tuple[Membership, ...]] = get_args(Membership)

CHAIN: Final = "chain"
DRAW: Final = "draw"
SAMPLE_DIMS: Final = (CHAIN, DRAW)
TERM: Final = "term"
RESPONSE: Final = "response"
OBS: Final = "obs"
AUX: Final = "_aux"  # suffix of the second axis of a correlation matrix

BETA: Final = "beta"  # (term) fixed effects, outcome units per unit of the column
SIGMA: Final = "sigma"  # () or (response) or (residual_group) residual SD, outcome units
RESIDUAL_GROUP: Final = "residual_group"  # value of the column that residual_by= names
SD_LOG_SIGMA: Final = "sd_log_sigma"  # () SD over therapists of the logarithm of their residual SD
LOG_SIGMA: Final = "log_sigma_therapist"  # (therapist) logarithm of the residual SD of a therapist's sessions
CORR_LOG_SIGMA: Final = "corr_log_sigma"  # () its correlation over therapists with their first random term
RESIDUAL_CORR: Final = "corr_residual"  # (response, response_aux) residual correlations within a session
PHI: Final = "phi"  # () or (response) lag-one residual autocorrelation
NU: Final = "nu"  # () degrees of freedom of Student residuals
CUTPOINTS: Final = "cutpoints"  # (threshold) thresholds of an ordinal outcome, latent logit scale
THRESHOLD: Final = "threshold"

LOADING: Final = "loading"  # (loading_term) coefficients of patients' random effects in outcomes of patients
LOADING_TERM: Final = "loading_term"
POOLED_MEAN: Final = "pooled_mean"  # (ingredient) mean over outcomes of the coefficients, SD of outcome per SD
POOLED_SD: Final = "pooled_sd"  # () SD of the coefficients around those means
INGREDIENT: Final = "ingredient"
IMPUTED: Final = "imputed"  # (missing) values of mediators that are missing where an outcome refers to them
MISSING: Final = "missing"
ROW_OF_MISSING: Final = "row_of_missing"  # (missing) index of the session in the data, in constant_data
PATIENT_OF_MISSING: Final = "patient_of_missing"  # (missing) index of the patient
RESPONSE_OF_MISSING: Final = "response_of_missing"  # (missing) index of the response that models the value

INTERCEPT: Final = "Intercept"
TIME: Final = "time"

POSTERIOR: Final = "posterior"
SAMPLE_STATS: Final = "sample_stats"
OBSERVED_DATA: Final = "observed_data"
CONSTANT_DATA: Final = "constant_data"

# Variables of the group constant_data.
DESIGN_X: Final = "X"  # (obs, term) fixed-effect columns
GROUP_OF_OBS: Final = "{level}_of_obs"  # (obs) index of the level's unit
MEMBERS_OF_OBS: Final = "{level}_members_of_obs"  # (obs, level_member) index of the units that share the row
WEIGHTS_OF_OBS: Final = "{level}_weights_of_obs"  # (obs, level_member) their weights, one in sum, zero for padding
PARENT_OF_UNIT: Final = "{parent}_of_{level}"  # (level) index of the parent's unit
SESSION_OF_OBS: Final = "session_of_obs"  # (obs) session number as given
TIME_OF_OBS: Final = "time_of_obs"  # (obs) time as given
COLUMN: Final = "column"  # of the data, as the user named it
MEAN_OF_UNIT: Final = "mean_{level}"  # (level, column) unit means by which decomposed variables were split
COUNT_OF_UNIT: Final = "{count}_of_{level}"  # (level) of caseload(), kept where the rows are left out
RESPONSE_OF_OBS: Final = "response_of_obs"  # (obs) index of the response, only with several responses
RESIDUAL_GROUP_OF_OBS: Final = "residual_group_of_obs"  # (obs) index of the residual's group, only with residual_by=

# Attributes of the tree's root; dicts are stored as JSON text.
ATTR_VERSION: Final = "psymech_version"
ATTR_SPEC: Final = "psymech_spec"
ATTR_TERMS: Final = "psymech_terms"  # JSON: label, role, part and factors of every fixed effect
ATTR_DESIGN: Final = "psymech_design"  # JSON: time basis, categories, nesting
ATTR_PRIORS: Final = "psymech_priors"  # JSON: the prior of every parameter
ATTR_PRIOR_NOTES: Final = "psymech_prior_notes"  # JSON: where a prior decides the answer
ATTR_LIBRARIES: Final = "psymech_libraries"  # JSON: versions of Python and of the libraries that made the fit
ATTR_ENGINE: Final = "engine"
ATTR_ENGINE_REASON: Final = "engine_reason"
ATTR_SEED: Final = "seed"
ATTR_SAMPLER: Final = "sampler"
ATTR_NOTES: Final = "psymech_notes"  # JSON: every finding on data and design, as an object with its ids
ATTR_INTERRUPTED: Final = "psymech_interrupted"  # JSON: draws asked for, made by each chain, chains kept; else absent
ATTR_TIMINGS: Final = ("check_seconds", "compile_seconds", "sampling_seconds", "recover_seconds")


def term_dim(level: str) -> str:
    """Dimension of the random terms of a level: ``patient_term``."""
    return f"{level}_term"


def sd(level: str) -> str:
    """SDs of a level's random terms, dims (level_term), outcome units per unit of the column."""
    return f"sd_{level}"


def corr(level: str) -> str:
    """Correlations of a level's random terms, dims (level_term, level_term_aux)."""
    return f"corr_{level}"


def effect(level: str) -> str:
    """Random effects of a level, dims (level, level_term), deviations from the fixed effects."""
    return f"u_{level}"


def design_z(level: str) -> str:
    """Random-effect columns of a level in constant_data, dims (obs, level_term)."""
    return f"Z_{level}"


def group_of_obs(level: str) -> str:
    """Index of each row's unit at a level, dims (obs)."""
    return GROUP_OF_OBS.format(level=level)


def members_of_obs(level: str) -> str:
    """Index of the units that share each row, dims (obs, level_member); only with multiple membership."""
    return MEMBERS_OF_OBS.format(level=level)


def weights_of_obs(level: str) -> str:
    """Weights of the units that share each row, dims (obs, level_member)."""
    return WEIGHTS_OF_OBS.format(level=level)


def member_dim(level: str) -> str:
    """Dimension of the units that share a row: ``therapist_member``."""
    return f"{level}_member"


def parent_of_unit(level: str, parent: str) -> str:
    """Index of each unit's parent, dims (level)."""
    return PARENT_OF_UNIT.format(level=level, parent=parent)


def count_of_unit(count: str, level: str) -> str:
    """A column of the caseload by unit, dims (level), in a fit saved without its rows: ``n_patients_of_therapist``."""
    return COUNT_OF_UNIT.format(count=count, level=level)


def mean_of_unit(level: str) -> str:
    """Means of the decomposed variables by unit, dims (level, column)."""
    return MEAN_OF_UNIT.format(level=level)
