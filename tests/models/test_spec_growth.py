"""growth(): labels, roles, random terms, and every refusal with its words."""

import pytest

import psymech as psm
from psymech.errors import SpecError
from psymech.spec.model import Factor, ModelSpec, RandomBlock, Response, Term


def labels(spec: psm.ModelSpec) -> tuple[str, ...]:
    return spec.responses[0].labels


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({"shape": "linear"}, ("Intercept", "time")),
        ({"shape": "log"}, ("Intercept", "time")),
        ({"shape": "quadratic"}, ("Intercept", "time", "time^2")),
        (
            {"shape": "piecewise", "knots": [4, 8.5]},
            ("Intercept", "time", "time.after(4)", "time.after(8.5)"),
        ),
        ({"shape": "spline", "df": 2}, ("Intercept", "time.spline1", "time.spline2")),
        ({"shape": "spline"}, ("Intercept", "time.spline1", "time.spline2", "time.spline3")),
        ({"shape": psm.TimeShape("piecewise", (4.0,))}, ("Intercept", "time", "time.after(4)")),
    ],
)
def test_time_shapes_have_stated_labels(keywords: dict, expected: tuple[str, ...]) -> None:
    spec = psm.growth("phq9", **keywords)
    assert labels(spec) == expected
    assert spec.time is not None
    assert spec.time.n_columns == len(expected) - 1
    assert [t.role for t in spec.responses[0].terms] == ["intercept"] + ["time"] * (len(expected) - 1)


def test_covariates_and_moderators() -> None:
    spec = psm.growth("phq9", shape="quadratic", covariates=["age"], moderators=["severity"])
    assert labels(spec) == ("Intercept", "time", "time^2", "age", "severity", "time:severity", "time^2:severity")
    roles = dict(zip(labels(spec), [t.role for t in spec.responses[0].terms], strict=True))
    assert roles["age"] == "covariate"
    assert roles["severity"] == "moderator"
    assert roles["time^2:severity"] == "interaction"
    product = spec.responses[0].terms[-1]
    assert product.factors == (Factor("time", basis=1), Factor("severity"))


def test_time_varies_over_patients_unless_told_otherwise() -> None:
    assert psm.growth("phq9").random == (RandomBlock("patient", ("Intercept", "time")),)
    assert psm.growth("phq9", random={"patient": []}).random == (RandomBlock("patient", ("Intercept",)),)


def test_time_in_random_means_every_time_column() -> None:
    spec = psm.growth("phq9", shape="spline", random={"patient": ["time"], "therapist": ["time.spline1"]})
    assert spec.block("patient") == RandomBlock(
        "patient", ("Intercept", "time.spline1", "time.spline2", "time.spline3")
    )
    assert spec.block("therapist") == RandomBlock("therapist", ("Intercept", "time.spline1"))
    assert spec.block("clinic") is None


def test_random_blocks_are_in_order_of_levels_and_name_the_intercept_once() -> None:
    spec = psm.growth("phq9", random={"clinic": [], "patient": ["Intercept", "time", "time"][:2]})
    assert [block.level for block in spec.random] == ["patient", "clinic"]
    assert spec.block("patient") == RandomBlock("patient", ("Intercept", "time"))


def test_none_leaves_a_level_out() -> None:
    spec = psm.growth("phq9", random={"patient": ["time"], "therapist": None})
    assert spec.without == ("therapist",)
    assert spec.block("therapist") is None


def test_correlated_and_centred_by_level() -> None:
    spec = psm.growth(
        "phq9",
        random={"patient": ["time"], "therapist": ["time"]},
        correlated={"therapist": False},
        centred={"patient": True},
    )
    patient, therapist = spec.random
    assert (patient.correlated, patient.centred) == (True, True)
    assert (therapist.correlated, therapist.centred) == (False, None)


def test_ordinal_thresholds_take_the_place_of_the_fixed_intercept() -> None:
    spec = psm.growth("rating", family="ordinal")
    assert labels(spec) == ("time",)
    assert spec.block("patient") == RandomBlock("patient", ("Intercept", "time"))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"shape": "cubic"}, "shape: expected one of 'linear', 'log', .* found 'cubic'"),
        ({"shape": "piecewise"}, r"shape='piecewise' needs knots=\(...\)"),
        ({"knots": [3]}, "knots belong to shape='piecewise', found shape='linear'"),
        ({"shape": "piecewise", "knots": [5, 3]}, "knots must increase strictly"),
        ({"shape": "piecewise", "knots": [3, 3]}, "knots must increase strictly"),
        ({"shape": "spline", "df": 1}, "needs a whole number df >= 2, found 1"),
        ({"family": "poisson"}, "family: expected one of 'gaussian', .* found 'poisson'"),
        ({"residual": "ma1"}, "residual: expected one of 'iid', 'ar1', found 'ma1'"),
        ({"residual": "ar1", "family": "student"}, r"residual='ar1' needs family='gaussian', found \['student'\]"),
        ({"covariates": ["time"]}, "'time' is already in the model through its shape"),
        ({"moderators": ["phq9"]}, "The outcome 'phq9' cannot predict itself"),
        ({"covariates": ["age"], "moderators": ["age"]}, "'age' is both a covariate and a moderator"),
        ({"covariates": ["age", "age"]}, "covariates names 'age' more than once"),
        ({"covariates": [3]}, "covariates: expected column names, found 3"),
        ({"covariates": ""}, "covariates: expected column names, found ''"),
        (
            {"random": {"patients": ["time"]}},
            "random: expected the levels patient, therapist, clinic, found 'patients'",
        ),
        (
            {"random": {"patient": ["alliance"]}},
            "random slope 'alliance' at level 'patient' is not a fixed effect of this model. Name one of: time",
        ),
        ({"random": {"patient": None}}, "at least one level must vary"),
        ({"random": {"patient": ["time", "time"]}}, r"random\['patient'\] names 'time' more than once"),
        ({"correlated": {"patients": False}}, "correlated: expected the levels .* found 'patients'"),
        ({"centred": {"dyad": False}}, "centred: expected the levels .* found 'dyad'"),
        ({"priors": {"slope": psm.Normal()}}, "priors: 'slope' names no parameter. Expected one of beta, "),
        ({"priors": {"beta[time": psm.Normal()}}, r"priors: 'beta\[time' names no parameter"),
        ({"priors": {"sd_patient": psm.Normal()}}, "priors: 'sd_patient' takes HalfNormal, HalfStudentT, Exponential"),
        ({"priors": {"beta": psm.HalfNormal()}}, "priors: 'beta' takes Normal, StudentT, found HalfNormal"),
    ],
)
def test_refusals_say_what_was_expected(keywords: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        psm.growth("phq9", **keywords)


def one_term_spec(**keywords: object) -> ModelSpec:
    values: dict = {
        "kind": "growth",
        "responses": (Response("phq9", (Term("Intercept", (), "intercept"),)),),
        "random": (RandomBlock("patient", ("Intercept",)),),
    }
    return ModelSpec(**(values | keywords))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        (
            {"random": (RandomBlock("patient", ("time",)),)},
            "random slope 'time' at level 'patient' is not a fixed effect",
        ),
        (
            {"random": (RandomBlock("patient", ("Intercept", "Intercept")),)},
            "The random block of level 'patient' names a term twice: Intercept, Intercept",
        ),
        ({"random": (RandomBlock("patient", ("Intercept",)),) * 2}, "Each level takes one random block"),
        ({"without": ("patient",)}, "Level 'patient' is both left out and given random terms"),
        ({"decompose": "both"}, "decompose: expected one of 'observed', 'latent', 'none', found 'both'"),
    ],
)
def test_a_model_that_contradicts_itself_cannot_exist(keywords: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        one_term_spec(**keywords)


def test_blocks_and_responses_check_themselves() -> None:
    with pytest.raises(SpecError, match=r"The random block of level 'patient' has no terms\. Use None"):
        RandomBlock("patient", ())
    with pytest.raises(SpecError, match="level: expected one of 'patient', 'therapist', 'clinic', found 'group'"):
        RandomBlock("group", ("Intercept",))  # pyright: ignore[reportArgumentType]
    term = Term("age", (Factor("age"),), "covariate")
    with pytest.raises(SpecError, match="The model names the term 'age' more than once"):
        Response("phq9", (term, term))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: psm.Normal(0, 0), "Normal.sd must be a finite number above zero, found 0"),
        (lambda: psm.Normal(float("nan"), 1), "Normal.mean must be a finite number, found nan"),
        (lambda: psm.StudentT(0, 0, 1), "StudentT.nu must be a finite number above zero"),
        (lambda: psm.StudentT(3, float("inf"), 1), "StudentT.mean must be a finite number, found inf"),
        (lambda: psm.HalfNormal(-1), "HalfNormal.sd must be a finite number above zero, found -1"),
        (lambda: psm.HalfNormal("2"), "HalfNormal.sd must be a finite number above zero, found '2'"),  # pyright: ignore[reportArgumentType]
        (lambda: psm.HalfStudentT(3, float("inf")), "HalfStudentT.sd must be a finite number above zero, found inf"),
        (lambda: psm.Exponential(0), "Exponential.mean must be a finite number above zero"),
        (lambda: psm.LKJ(0), "LKJ.eta must be a finite number above zero"),
        (lambda: psm.Gamma(1, -1), "Gamma.rate must be a finite number above zero"),
        (lambda: psm.SymmetricBeta(0), "SymmetricBeta.a must be a finite number above zero"),
    ],
)
def test_priors_check_their_numbers(make, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make()
