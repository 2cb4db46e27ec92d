"""The command line: psymech demo, check, fit, resume, report, simulate."""

import json
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from psymech import __version__
from psymech.errors import PsymechError

EXIT_FAILED: Final = 1  # an error: of the table, the configuration, a file
EXIT_INTERRUPTED: Final = 130  # Ctrl-C, as shells count it
EXIT_CHECKS: Final = 3  # the fit is there, but its draws did not pass the checks
ATTR_INPUT: Final = "psymech_input_sha256"  # of configuration and tables, so that a finished fit is not made twice

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="""Bayesian three-level models (sessions in patients in therapists) for psychotherapy process research.

    Begin with these, one after the other:

    - psymech demo: what comes out, on a simulated study

    - psymech check sessions.csv: can your table be used?

    - psymech fit --example > fit.toml: a configuration to edit; other questions with --kind

    - psymech fit fit.toml: fit, check, save, report

    Each command has an example under its --help.

    Exit status: 0 done, 1 an error (of the table, the configuration, a file), 2 a wrong option, 3 the fit is there
    but its draws did not pass the checks, 130 interrupted by Ctrl-C.""",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for other programs instead of text.")]


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"psymech {__version__}")
        raise typer.Exit()
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@contextmanager
def _errors(as_json: bool) -> Iterator[None]:
    """Turn our own errors into words (or JSON) and exit status 1."""
    try:
        yield
    except PsymechError as problem:
        if as_json:
            typer.echo(json.dumps({"ok": False, "error": type(problem).__name__, "message": str(problem)}))
        else:
            typer.echo(f"psymech: {problem}", err=True)
        raise typer.Exit(EXIT_FAILED) from problem
    except OSError as problem:  # a folder that cannot be made, a disk that is full
        text = f"{problem.strerror or problem}: {problem.filename or 'file'}"
        if as_json:
            typer.echo(json.dumps({"ok": False, "error": type(problem).__name__, "message": text}))
        else:
            typer.echo(f"psymech: {text}", err=True)
        raise typer.Exit(EXIT_FAILED) from problem
    except KeyboardInterrupt as stop:
        if as_json:
            typer.echo(json.dumps({"ok": False, "error": "KeyboardInterrupt", "message": "interrupted"}))
        else:
            typer.echo("psymech: interrupted.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from stop


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="Table, one row a session: .csv .tsv .txt .parquet .sav")],
    patient: Annotated[str, typer.Option(help="Column of patients' ids.")] = "patient",
    therapist: Annotated[str, typer.Option(help="Column of therapists' ids; 'none' for two levels.")] = "therapist",
    clinic: Annotated[str | None, typer.Option(help="Column of clinics' ids.")] = None,
    session: Annotated[str, typer.Option(help="Column of session numbers.")] = "session",
    time: Annotated[str | None, typer.Option(help="Column of times; session numbers by default.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A configuration: its roles and model are checked, on this table.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Let warnings fail as well.")] = False,
    as_json: Json = False,
) -> None:
    """Check a table: what must be corrected, what makes answers uncertain, what was tidied.

    Exit status 0: it can be used (warnings may stand); 1: errors were found. Nothing is fitted and nothing is written.

    Example: psymech check sessions.csv --patient id --session visit
    """
    with _errors(as_json):
        from psymech.config import read_config
        from psymech.data.sessions import SessionData
        from psymech.design import check_design

        spec = None
        if config is None:
            of = None if therapist == "none" else therapist
            data = SessionData.from_frame(
                file, patient=patient, therapist=of, clinic=clinic, session=session, time=time
            )
        else:
            read = read_config(config)
            data, spec = SessionData.from_frame(file, **read.reading), read.spec
        found = check_design(data, spec)
        good = found.ok and not (strict and found.warnings)
        if as_json:
            rows = [asdict(finding) for finding in found.findings]
            typer.echo(json.dumps({"ok": good, "data": repr(data), "findings": rows}, ensure_ascii=False))
        else:
            typer.echo(f"{data}\n{found}")
    if not good:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def fit(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file with the sections data, model, sampling, output.")
    ] = None,
    example: Annotated[bool, typer.Option("--example", help="Print a configuration to start from, and stop.")] = False,
    kind: Annotated[
        str, typer.Option(help="Of --example: growth, process, mediation or outcomes.", show_default=True)
    ] = "process",
    draws: Annotated[int | None, typer.Option(help="Draws a chain, in place of the file's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed, in place of the file's.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Fit even where the same fit is there already.")] = False,
    store: Annotated[
        bool,
        typer.Option("--store", help="Keep chains on the disk as they come; the same command goes on after a stop."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Fit a model that a configuration file describes, save the fit and, where asked for, a report.

    A fit that is there already, made from the same configuration and tables, is not made again. Progress goes to
    standard error. Exit status 3: the fit was saved, but its draws did not pass the checks. 130: interrupted by
    Ctrl-C; what was drawn is saved with a mark, or with --store kept for psymech resume.

    Example: psymech fit --example > fit.toml; psymech fit fit.toml
    """
    if example:
        from psymech.config import example_config

        with _errors(as_json):
            typer.echo(example_config(kind), nl=False)
        return
    if config is None:
        raise typer.BadParameter("name a configuration file, or see one with --example.", param_hint="CONFIG")
    with _errors(as_json):
        from psymech.config import read_config
        from psymech.inference.checks import check_sampling
        from psymech.inference.interruption import interrupted
        from psymech.inference.storage import save

        read = read_config(config)
        target = read.output.get("fit", config.resolve().with_suffix(".nc"))
        options = dict(read.sampling)
        options |= {name: value for name, value in (("draws", draws), ("seed", seed)) if value is not None}
        digest = _digest(read, options)
        tree = None if again else _made_before(target, digest)
        reused = tree is not None
        if tree is None:
            tree = _fitted(read, options, target if store else None, again=again, quiet=as_json)
            if interrupted(tree):
                _say_interrupted(tree, target, stored=store, as_json=as_json)
                raise typer.Exit(EXIT_INTERRUPTED)
            tree.attrs[ATTR_INPUT] = digest
            save(tree, target)
        report_path = read.output.get("report")
        tables = read.output.get("tables")
        if report_path is not None:
            from psymech.reporting.html import report as write

            write(tree, report_path, tables=tables, higher_is_better=not read.lower_is_better)
        elif tables is not None:
            from psymech.reporting.tables import write_tables

            write_tables(tree, tables, higher_is_better=not read.lower_is_better)
        found = check_sampling(tree)
        if as_json:
            messages = [str(message) for message in found.messages]
            result = {"ok": found.ok, "verdict": found.verdict, "messages": messages, "fit": str(target)}
            result |= {"reused": reused, "report": None if report_path is None else str(report_path)}
            typer.echo(json.dumps(result))
        else:
            said = "is there already, made from the same input (--again makes it anew)" if reused else "written"
            typer.echo(f"{found}\nfit: {target.name}, {said}")
            if report_path is not None:
                typer.echo(f"report: {report_path.name}")
    if not found.ok:
        raise typer.Exit(EXIT_CHECKS)


def _digest(read: Any, options: dict[str, Any]) -> str:
    """SHA-256 of the configuration, the options and the tables it names."""
    total = sha256(f"{__version__}\n{read.text}\n{sorted(options.items())}".encode())
    for path in (read.table, *(value for value in read.reading.values() if isinstance(value, Path))):
        if path.is_file():
            total.update(path.read_bytes())
    return total.hexdigest()


def _made_before(target: Path, digest: str) -> Any:
    """Return the fit that stands at the target and was made from the same input, or None."""
    from psymech.inference.run_folder import is_run
    from psymech.inference.storage import load

    if not target.exists() or is_run(target):
        return None
    try:
        tree = load(target)
    except PsymechError:  # damaged, or of another version: it is made anew
        return None
    return tree if tree.attrs.get(ATTR_INPUT) == digest else None


def _fitted(read: Any, options: dict[str, Any], store: Path | None, *, again: bool, quiet: bool) -> Any:
    from psymech.inference.drawing import SamplingWarning
    from psymech.inference.resume import resume as go_on
    from psymech.inference.run_folder import is_run
    from psymech.inference.sample import fit as fit_model
    from psymech.inference.store import check_options

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)  # the verdict is printed with its reasons
        if store is not None and again and store.exists():
            shutil.rmtree(store) if store.is_dir() else store.unlink()
        if store is not None and is_run(store):
            check_options(store, options)
            return go_on(store, spec=read.spec, data=read.data(), progressbar=not quiet)
        return fit_model(read.spec, read.data(), **options, store=store, progressbar=not quiet)


def _say_interrupted(tree: Any, target: Path, *, stored: bool, as_json: bool) -> None:
    from psymech.inference.interruption import interrupted
    from psymech.inference.storage import save

    if not stored:
        save(tree, target)
    left = f"Go on with: psymech resume {target.name}" if stored else f"It is in {target.name}, with that mark."
    if as_json:
        typer.echo(json.dumps({"ok": False, "verdict": "not assessable", "messages": [interrupted(tree), left]}))
    else:
        typer.echo(f"psymech: {interrupted(tree)} {left}", err=True)


@app.command()
def resume(
    path: Annotated[Path, typer.Argument(help="What psymech fit --store was making: .nc or .zarr", metavar="FIT")],
    cores: Annotated[int | None, typer.Option(help="Chains that run at once.")] = None,
    as_json: Json = False,
) -> None:
    """Go on with a fit that was stopped, begun with psymech fit --store or with store= in Python.

    The posterior is that of a run that was not stopped. Exit status as of psymech fit.

    Example: psymech resume fit.nc
    """
    with _errors(as_json):
        from psymech.inference.checks import check_sampling
        from psymech.inference.drawing import SamplingWarning
        from psymech.inference.interruption import interrupted
        from psymech.inference.resume import resume as go_on

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SamplingWarning)  # the verdict is printed with its reasons
            tree = go_on(path, cores=cores, progressbar=not as_json)
        if interrupted(tree):
            _say_interrupted(tree, path, stored=True, as_json=as_json)
            raise typer.Exit(EXIT_INTERRUPTED)
        found = check_sampling(tree)
        if as_json:
            messages = [str(message) for message in found.messages]
            typer.echo(json.dumps({"ok": found.ok, "verdict": found.verdict, "messages": messages, "fit": str(path)}))
        else:
            typer.echo(f"{found}\nfit: {path.name}, written")
    if not found.ok:
        raise typer.Exit(EXIT_CHECKS)


@app.command()
def report(
    file: Annotated[Path, typer.Argument(help="A saved fit: .nc or .zarr", metavar="FIT")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="HTML file; FIT.html by default.")] = None,
    identified: Annotated[
        bool, typer.Option("--identified", help="Show ids as they are. For use inside the service only.")
    ] = False,
    min_patients: Annotated[int, typer.Option(help="Smallest group shown in an anonymised report, 5 at least.")] = 5,
    lower_is_better: Annotated[bool, typer.Option("--lower-is-better", help="Ranks for symptom scores.")] = False,
    title: Annotated[str | None, typer.Option(help="Title in place of the one made from the model.")] = None,
    question: Annotated[str | None, typer.Option(help="Question in place of the one made from the model.")] = None,
    tables: Annotated[Path | None, typer.Option(help="Folder for the tables as CSV and LaTeX.")] = None,
    key: Annotated[Path | None, typer.Option(help="File for the key of codes; readable by you only.")] = None,
    as_json: Json = False,
) -> None:
    """Write a report on a saved fit: one HTML file, anonymised unless told otherwise.

    Numbers whose checks failed are withheld, with the reasons.

    Example: psymech report fit.nc -o report.html --lower-is-better
    """
    with _errors(as_json):
        from psymech.inference.storage import load
        from psymech.reporting.html import report as write

        target = output or file.with_suffix(".html")
        if not as_json and sys.stderr.isatty():
            typer.echo("Checking the fit and drawing its figures ...", err=True)
        write(
            load(file),
            target,
            anonymize=not identified,
            min_patients=min_patients,
            higher_is_better=not lower_is_better,
            title=title,
            question=question,
            tables=tables,
            key=key,
        )
        typer.echo(json.dumps({"ok": True, "report": str(target)}) if as_json else f"report: {target.name}")


@app.command()
def simulate(
    output: Annotated[Path, typer.Argument(help="CSV file to write, one row a session.")],
    config: Annotated[Path | None, typer.Option(help="Configuration whose model is simulated.")] = None,
    therapists: Annotated[int, typer.Option(help="Therapists; 0 for none.")] = 20,
    patients: Annotated[int, typer.Option(help="Patients per therapist.")] = 8,
    sessions: Annotated[int, typer.Option(help="Sessions per patient.")] = 12,
    dropout: Annotated[float, typer.Option(help="Probability to leave at each session.")] = 0.0,
    missing: Annotated[float, typer.Option(help="Share of missing outcomes.")] = 0.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same table.")] = 1,
    as_json: Json = False,
) -> None:
    """Simulate a study with known truth, to plan with or to try a model on.

    Without a configuration: symptoms on a technique and the alliance. Beside OUTPUT, tables of patients and
    therapists are written where the model has such columns, and the truth as OUTPUT_truth.json.

    Example: psymech simulate planned.csv --therapists 30 --patients 10
    """
    with _errors(as_json):
        from psymech.config import read_config
        from psymech.errors import DataError
        from psymech.models.process import process
        from psymech.simulation import Sizes
        from psymech.simulation import simulate as simulate_study

        spec = (
            process("symptoms", techniques=["technique"], common_factors=["alliance"])
            if config is None
            else read_config(config).spec
        )
        sizes = Sizes(
            therapists=therapists or None, patients=patients, sessions=sessions, dropout=dropout, missing=missing
        )
        made = simulate_study(spec, sizes=sizes, seed=seed)
        written = []
        parameters = [name for name in made.truth.data_vars if made.truth[name].size <= 200]
        truth = made.truth[parameters].to_dict()
        try:
            for name, table in (("", made.frame), ("_patients", made.patients), ("_therapists", made.therapists)):
                if table is not None:
                    path = output.with_name(f"{output.stem}{name}{output.suffix or '.csv'}")
                    table.to_csv(path, index=False)
                    written.append(path)
            path = output.with_name(f"{output.stem}_truth.json")
            path.write_text(json.dumps(truth, default=str), encoding="utf-8")
        except OSError as problem:
            raise DataError(f"Could not write {output.name!r}: {problem.strerror or problem}.") from problem
        written.append(path)
        typer.echo(
            json.dumps({"ok": True, "written": [str(p) for p in written], "sessions": len(made.frame)})
            if as_json
            else f"simulated {len(made.frame):,} sessions: {', '.join(p.name for p in written)}"
        )


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where to write; made where absent.")] = Path("psymech_demo"),
    draws: Annotated[int, typer.Option(help="Draws a chain.")] = 500,
    as_json: Json = False,
) -> None:
    """Fit the simulated study that comes with psymech, and write fit and report.

    The study has 20 therapists; the question is whether the alliance goes with symptoms from session to session.
    """
    with _errors(as_json):
        from psymech.data.examples import load_example
        from psymech.inference.checks import check_sampling
        from psymech.inference.sample import fit as fit_model
        from psymech.inference.storage import save
        from psymech.models.process import process
        from psymech.posterior.effects import effects
        from psymech.reporting.html import report as write

        folder.mkdir(parents=True, exist_ok=True)
        data = load_example("process_study")
        spec = process("phq9", common_factors=["alliance"], slopes={"patient": ["time"], "therapist": ["time"]})
        tree = fit_model(spec, data, draws=draws, tune=500, seed=1, progressbar=not as_json)
        save(tree, folder / "fit.nc")
        write(tree, folder / "report.html", higher_is_better=False, title="Demonstration: a simulated study")
        found = check_sampling(tree)
        if as_json:
            typer.echo(json.dumps({"ok": found.ok, "verdict": found.verdict, "folder": str(folder)}))
        else:
            table = effects(tree)[["mean", "sd", "p_above_zero"]].round(3).to_string()
            typer.echo(f"{data}\n\n{found}\n\nEffects on phq9, a symptom score:\n{table}\n")
            typer.echo(f"Written to {folder}: fit.nc and report.html, which any browser opens.")


def main() -> None:
    """Run the command line."""
    app(prog_name="psymech")


if __name__ == "__main__":
    sys.exit(main())
