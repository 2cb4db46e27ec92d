"""A fit described in a TOML file: read, validated with helpful errors, turned into data, specification and options."""

import inspect
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from psymech.data.sessions import SessionData
from psymech.errors import SpecError
from psymech.models.growth import growth
from psymech.models.mediation import mediation
from psymech.models.outcomes import outcomes
from psymech.models.process import process
from psymech.spec.model import ModelSpec
from psymech.spec.priors import Prior, from_dict

MODELS: Final[Mapping[str, Callable[..., ModelSpec]]] = {
    "growth": growth,
    "process": process,
    "mediation": mediation,
    "outcomes": outcomes,
}
ROLES: Final = ("patient", "therapist", "clinic", "session", "time")
TABLES: Final = ("patients", "therapists", "clinics")
DATA_KEYS: Final = ("file", *ROLES, *TABLES, "patient_ids", "ranges")
SAMPLING: Final[Mapping[str, type | tuple[type, ...]]] = {
    "engine": str,
    "draws": int,
    "tune": int,
    "chains": int,
    "seed": int,
    "sampler": str,
    "cores": int,
    "target_accept": (float, int),
    "max_treedepth": int,
}
OUTPUT: Final = ("fit", "report", "tables")
LOWER: Final = "lower_is_better"
_EXAMPLE: Final = """\
[data]
file = "sessions.csv"          # one row a session; also .tsv .parquet .sav
patient = "patient"            # columns that play a role
therapist = "therapist"        # therapist = "none": there are no therapists
session = "session"
{patients}    # one row a patient: severity, pre and post scores

[model]
kind = "{kind}"{pad}# growth, process, mediation or outcomes: the keywords are those of psymech.{kind}
{model}
# [priors]
# "sd_therapist[Intercept]" = {{ family = "HalfNormal", sd = 2.0 }}

[sampling]
draws = 1000
seed = 1

[output]
fit = "fit.nc"                 # or fit.zarr
report = "report.html"
lower_is_better = {lower}
"""
_SYMPTOMS: Final = "true         # phq9 is a symptom score: the highest rank belongs to the lowest value"
_EXAMPLES: Final[Mapping[str, tuple[str, str]]] = {
    "growth": (
        """\
outcome = "phq9"               # how does it change, and how differently?
shape = "log"                  # linear, log, quadratic, piecewise, spline
random = { patient = ["time"], therapist = ["time"] }
""",
        _SYMPTOMS,
    ),
    "process": (
        """\
outcome = "phq9"
techniques = ["exposure"]      # what was done in the session
common_factors = ["alliance"]  # how the session was
lag = 1                        # ratings of the session before
slopes = { patient = ["alliance"], therapist = ["alliance"] }
""",
        _SYMPTOMS,
    ),
    "mediation": (
        """\
outcome = "phq9"
treatment = "exposure"         # does it work through the mediator?
mediators = ["alliance"]
lag = 1                        # exposure and alliance of one session, symptoms of the next
random = { patient = ["a", "b"], therapist = ["a", "b"] }
""",
        _SYMPTOMS,
    ),
    "outcomes": (
        """\
outcomes = ["coping", "quality_of_life"]  # coping_pre and coping_post, ... in the patients' table
techniques = ["exposure"]
common_factors = ["alliance"]
""",
        "false        # more coping and more quality of life are better",
    ),
}
NONE: Final = "none"  # TOML has no null: therapist = "none" says that there are no therapists


@dataclass(frozen=True, slots=True)
class Config:
    """What a configuration file asks for; paths are relative to the file."""

    table: Path
    reading: Mapping[str, Any]
    spec: ModelSpec
    sampling: Mapping[str, Any]
    output: Mapping[str, Path]
    lower_is_better: bool
    text: str = field(repr=False)

    def data(self) -> SessionData:
        """Read the table and the tables of units."""
        return SessionData.from_frame(self.table, **self.reading)


def example_config(kind: str = "process") -> str:
    """Return the text of a configuration to start from.

    Parameters
    ----------
    kind
        ``"growth"``, ``"process"``, ``"mediation"`` or ``"outcomes"``.

    Returns
    -------
    str
        TOML, with a comment at each line that needs one.

    Raises
    ------
    SpecError
        Another kind; near names are suggested.
    """
    _known((kind,), MODELS, "kind of model")
    model, lower = _EXAMPLES[kind]
    patients = f'{"" if kind == "outcomes" else "# "}patients = "patients.csv"'
    return _EXAMPLE.format(kind=kind, pad=" " * (22 - len(kind)), patients=patients, model=model, lower=lower)


def read_config(path: str | Path) -> Config:
    """Return a validated configuration.

    Parameters
    ----------
    path
        A TOML file with the sections ``[data]``, ``[model]`` and, where wanted, ``[priors]``, ``[sampling]``,
        ``[output]``.

    Returns
    -------
    Config

    Raises
    ------
    SpecError
        The file is absent or no TOML, or a key is unknown (near names are suggested), missing or of the wrong type.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or "it is not UTF-8 text"
        raise SpecError(f"Cannot read the configuration {path.name!r}: {reason}.") from problem
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise SpecError(
            f'{path.name!r} is not TOML: {problem}. Text needs quotes, lists square brackets: outcome = "phq9".'
        ) from problem
    _known(values, ("data", "model", "priors", "sampling", "output"), "section")
    folder = path.resolve().parent
    table, reading = _data(_section(values, "data", path), folder)
    spec = _model(_section(values, "model", path), values.get("priors", {}))
    output, lower_is_better = _output(_optional(values, "output"), folder)
    return Config(
        table=table,
        reading=reading,
        spec=spec,
        sampling=_sampling(_optional(values, "sampling")),
        output=output,
        lower_is_better=lower_is_better,
        text=text,
    )


def _section(values: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    if name not in values:
        raise SpecError(f"{path.name!r} has no section [{name}]. Run 'psymech fit --example' to see a whole file.")
    return _optional(values, name)


def _optional(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = values.get(name, {})
    if not isinstance(section, dict):
        raise SpecError(f"{name}: expected a section [{name}] with lines 'key = value', found {section!r}.")
    return section


def _known(found: Iterable[str], allowed: Iterable[str], what: str) -> None:
    every = tuple(allowed)
    for name in found:
        if name not in every:
            near = get_close_matches(name, every, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise SpecError(f"Unknown {what} {name!r}.{hint} Expected one of {', '.join(every)}.")


def _typed(section: str, name: str, value: object, kind: type | tuple[type, ...]) -> None:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if (isinstance(value, bool) and bool not in kinds) or not isinstance(value, kinds):
        words = {str: "text in quotes", int: "a whole number", float: "a number"}
        raise SpecError(f"[{section}] {name}: expected {words.get(kinds[0], kinds[0].__name__)}, found {value!r}.")


def _data(section: Mapping[str, Any], folder: Path) -> tuple[Path, dict[str, Any]]:
    _known(section, DATA_KEYS, "key in [data]:")
    if "file" not in section:
        raise SpecError('[data] needs the table of sessions: file = "sessions.csv".')
    reading: dict[str, Any] = {}
    for name, value in section.items():
        if name == "ranges":
            reading[name] = _ranges(value)
            continue
        _typed("data", name, value, str)
        if name in TABLES:
            reading[name] = folder / value
        elif name != "file":
            reading[name] = None if name in ROLES and value == NONE else value
    return folder / section["file"], reading


def _ranges(value: object) -> dict[str, tuple[float, float]]:
    if not isinstance(value, dict):
        raise SpecError(f"[data] ranges: expected a table such as {{ phq9 = [0, 27] }}, found {value!r}.")
    found = {}
    for name, ends in value.items():
        good = isinstance(ends, list) and len(ends) == 2 and all(isinstance(e, int | float) for e in ends)
        if not good:
            raise SpecError(
                f"[data] ranges: {name}: expected lowest and highest value such as [0, 27], found {ends!r}."
            )
        found[name] = (float(ends[0]), float(ends[1]))
    return found


def _model(section: Mapping[str, Any], priors: object) -> ModelSpec:
    kind = section.get("kind")
    if kind not in MODELS:
        near = get_close_matches(str(kind), MODELS, n=1)
        hint = f" Did you mean {near[0]!r}?" if kind is not None and near else ""
        raise SpecError(f"[model] kind: expected one of {', '.join(MODELS)}, found {kind!r}.{hint}")
    make = MODELS[kind]
    parameters = [name for name in inspect.signature(make).parameters if name != "priors"]
    _known((name for name in section if name != "kind"), parameters, f"key in [model] of kind {kind!r}:")
    arguments = {name: _value(name, value) for name, value in section.items() if name != "kind"}
    try:
        return make(**arguments, priors=_priors(priors))
    except TypeError as problem:
        first = parameters[0]
        if first not in arguments:
            raise SpecError(f'[model] needs {first}, such as {first} = "phq9".') from problem
        raise SpecError(f"[model]: {_reason(problem)}.") from problem


def _value(name: str, value: Any) -> Any:
    """Return a TOML value as the model functions take it: time = "none", and a level that is "none", are None."""
    if name == "time" and value == NONE:
        return None
    if isinstance(value, dict):
        return {level: None if each == NONE else each for level, each in value.items()}
    return value


def _reason(problem: TypeError) -> str:
    return str(problem).replace("() ", ": ", 1).rstrip(".")


def _priors(section: object) -> dict[str, Prior] | None:
    if not isinstance(section, dict):
        raise SpecError(f"priors: expected a section [priors], found {section!r}.")
    found = {}
    for name, value in section.items():
        example = f'"{name}" = {{ family = "HalfNormal", sd = 2.0 }}'
        if not isinstance(value, dict) or "family" not in value:
            raise SpecError(f"[priors] {name}: expected a table such as {example}, found {value!r}.")
        try:
            found[name] = from_dict(value)
        except (KeyError, TypeError) as problem:
            raise SpecError(
                f"[priors] {name}: {value['family']} lacks {problem}. Write for instance {example}."
            ) from problem
    return found or None


def _sampling(section: Mapping[str, Any]) -> dict[str, Any]:
    _known(section, SAMPLING, "key in [sampling]:")
    for name, value in section.items():
        _typed("sampling", name, value, SAMPLING[name])
    return dict(section)


def _output(section: Mapping[str, Any], folder: Path) -> tuple[dict[str, Path], bool]:
    _known(section, (*OUTPUT, LOWER), "key in [output]:")
    for name, value in section.items():
        if name == LOWER and not isinstance(value, bool):
            raise SpecError(f"[output] {name}: expected true or false, found {value!r}.")
        if name != LOWER:
            _typed("output", name, value, str)
    return {name: folder / value for name, value in section.items() if name != LOWER}, bool(section.get(LOWER))
