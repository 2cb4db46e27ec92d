"""Every error class says what it should; five ids at most; nothing of ours logs an id."""

import logging

import numpy as np
import pandas as pd
import pytest

import psymech as psm
from psymech import errors
from psymech.errors import shown_id, shown_ids


def crossed() -> psm.SessionData:
    rng = np.random.default_rng(1)
    rows = [(f"T{(p + s // 3) % 5}", f"P{p}", s, float(rng.normal())) for p in range(12) for s in range(1, 7)]
    frame = pd.DataFrame(rows, columns=pd.Index(["therapist", "patient", "session", "mood"]))
    return psm.SessionData.from_frame(frame, patient_ids="crossed")


def absent_column() -> None:
    psm.load_example("process_study").values("aliance")


def one_therapist() -> None:
    data = psm.load_example("process_study")
    frame = data.sessions[data.sessions["therapist"] == data.ids["therapist"][0]]
    psm.build_model(psm.growth("phq9"), psm.SessionData.from_frame(frame))


WORDS = {
    errors.DataError: (absent_column, r"no column 'aliance'. Did you mean 'alliance'"),
    errors.DesignError: (one_therapist, r"only 1 therapist.*at least 3 therapists.*leave the level out"),
    errors.SpecError: (
        lambda: psm.growth("phq9", family="normal"),
        r"family: expected one of 'gaussian'.*found 'normal'",
    ),
    errors.UnavailableError: (
        lambda: psm.process("phq9", common_factors=["alliance"], decompose="latent"),
        r"decompose='latent' is not available yet; use 'observed'",
    ),
    errors.NotCollapsibleError: (
        lambda: psm.build_model(psm.growth("mood"), crossed(), engine="collapsed"),
        r"not exact here: patients are crossed.*Use engine='explicit' or 'auto'",
    ),
}


def every_class(base: type) -> set[type]:
    return {base, *(found for each in base.__subclasses__() for found in every_class(each))}


def test_every_error_class_is_tested_for_its_words():
    own = {each for each in every_class(errors.PsymechError) if each.__module__ == "psymech.errors"}
    assert own - {errors.PsymechError} == set(WORDS)


@pytest.mark.filterwarnings("ignore::psymech.DesignWarning")
@pytest.mark.parametrize("kind", list(WORDS), ids=lambda kind: kind.__name__)
def test_an_error_says_what_was_found_and_what_to_do(kind: type[errors.PsymechError]):
    call, words = WORDS[kind]
    with pytest.raises(kind, match=words) as told:
        call()
    assert type(told.value) is kind


def test_ids_in_messages_are_few_short_and_printable():
    assert shown_ids([f"P{i}" for i in range(9)]) == "P0, P1, P2, P3, P4 and 4 more"
    assert shown_id("a\tb ") == "'a\\tb '"
    assert shown_id("x" * 100) == "x" * 60 + "... (100 characters)"


def test_a_design_warning_names_five_ids_at_most():
    data = psm.load_example("process_study")
    keep = data.sessions.groupby("patient").cumcount() < np.where(data.sessions["patient"] < "P020", 1, 99)
    few = psm.SessionData.from_frame(data.sessions[keep])
    with pytest.warns(psm.DesignWarning, match="and 1[0-9] more") as told:
        psm.build_model(psm.growth("phq9"), few)
    for warning in told:
        assert sum(str(patient) in str(warning.message) for patient in data.ids["patient"]) <= 5


def test_nothing_is_logged_or_printed_with_an_id(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]):
    """Reading, checking and sampling with everything shown: neither the log nor the terminal names a patient."""
    caplog.set_level(logging.DEBUG)
    data = psm.load_example("process_study")
    psm.check_design(data, psm.growth("phq9"))
    psm.sample(psm.build_model(psm.growth("phq9"), data), draws=20, tune=100, chains=2, seed=1)
    said = caplog.text + "".join(capfd.readouterr())
    assert "sampling 2 chains" in said
    assert [each for each in (*data.ids["patient"], *data.ids["therapist"]) if str(each) in said] == []
