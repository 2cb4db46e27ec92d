"""What a fit says of its priors."""

import json

import pytest

import psymech as psm
from psymech.design import make_design
from psymech.inference.prior_table import prior_table
from psymech.priors import choose_priors
from psymech.spec.model import Family
from tests.inference.studies import small_data

RESIDUAL: dict[Family, set[str]] = {
    "gaussian": {"sigma"}, "student": {"sigma", "nu"}, "bernoulli": set(), "ordinal": {"cutpoints"},
}  # fmt: skip


@pytest.mark.parametrize("family", RESIDUAL)
@pytest.mark.filterwarnings("ignore:.*only 6 therapists")
def test_each_family_has_its_own_parameters_of_the_residual(family: Family) -> None:
    spec = psm.growth("y", family=family)
    design = make_design(spec, small_data(1, family=family))
    told = json.loads(prior_table(design, choose_priors(spec, design)))
    effects = {f"beta[{term}]" for term in design.terms}
    effects |= {f"sd_{level.level}[{term}]" for level in design.levels for term in level.terms}
    correlations = {f"corr_{level.level}" for level in design.levels if level.correlated and len(level.terms) > 1}
    assert set(told) - correlations == effects | RESIDUAL[family]
