"""Same seed, same draws on the explicit engine: two builds of one model, in one process."""

import pytest

import psymech as psm
from tests.inference.studies import small_data


@pytest.mark.slow
def test_two_builds_of_an_explicit_model_give_the_same_draws() -> None:
    spec = psm.growth("y", family="student", random={"patient": ["time"], "therapist": []})
    trees = []
    for _ in range(2):
        model = psm.build_model(spec, small_data(1), engine="explicit")
        trees.append(psm.sample(model, draws=50, tune=100, chains=2, cores=1, seed=7, progressbar=False))
    assert trees[0]["posterior"].to_dataset().identical(trees[1]["posterior"].to_dataset())
    assert trees[0]["sample_stats"].to_dataset().identical(trees[1]["sample_stats"].to_dataset())
