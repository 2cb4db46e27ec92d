"""Turn the benchmark's JSON into ``docs/benchmarks.md``.

Run: python benchmarks/table.py [benchmarks/results/full.json] [--out docs/benchmarks.md]; ``--out -`` prints.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import designs

HERE = Path(__file__).resolve().parent
Row = dict[str, Any]

INTRODUCTION = """# Benchmarks

Made by `make bench` and `python benchmarks/table.py`; do not edit by hand. Every case ran in a process of its own, one
after the other, on the same table: an intercept and three slopes, correlated, at both levels, as simulated by
`benchmarks/designs.py`.

- Compile: caches as they were. Draw: warm-up, draws, and drawing the effects. Total: building the model besides.
- ESS: the smallest effective sample size, bulk or tail, over SDs, fixed effects, therapist effects and the residual SD.
- CPU: of drawing, all cores together. Memory: the largest process's peak.
- A case that was not finished in time, or whose program is not installed, says so. A figure with R-hat above 1.01
  belongs to chains that had not mixed, and its ESS is then no gain.
"""


def number(value: object, digits: int = 3) -> str:
    """A figure with a few digits, without exponent."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}g}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


COLUMNS: tuple[tuple[str, Callable[[Row], object]], ...] = (
    ("compile s", lambda f: f["compile_seconds"]),
    ("draw s", lambda f: f["sampling_seconds"] + f["recover_seconds"]),
    ("total s", lambda f: f["total_seconds"]),
    ("CPU s", lambda f: f["cpu_seconds"]),
    ("ESS", lambda f: f["min_ess"]),
    ("ESS per s", lambda f: f["min_ess_per_second"]),
    ("ESS per CPU s", lambda f: f["min_ess_per_cpu_second"]),
    ("R-hat", lambda f: f"{f['max_rhat']:.3f}"),
    ("divergences", lambda f: f["divergences"]),
    ("memory MiB", lambda f: f["peak_mebibytes"]),
)


def label(case: Row) -> str:
    """What was measured."""
    if case["case"] == "hand_written":
        return "hand-written PyMC model, nutpie"
    return f"psymech {case['engine']}, {case['sampler']}"


def posterior_table(rows: Sequence[Row]) -> str:
    """One row for each full posterior."""
    lines = []
    for row in rows:
        case, figures = row["case"], row["figures"]
        if "not_measured" in figures:
            lines.append([label(case), figures["not_measured"], *[""] * (len(COLUMNS) - 1)])
        else:
            lines.append([label(case), *(number(of(figures)) for _, of in COLUMNS)])
    return markdown(["model", *(name for name, _ in COLUMNS)], lines)


def lme4_sentence(rows: Sequence[Row]) -> str:
    """What lme4 took for its REML fit of the same model."""
    out = []
    for row in rows:
        figures = row["figures"]
        if "not_measured" in figures:
            out.append(f"lme4's REML fit of the same model: {figures['not_measured']}.")
            continue
        state = "" if figures["converged"] else ", not converged by its own checks"
        state += ", singular" if figures["singular"] else ""
        out.append(
            f"lme4 {figures['lme4']} (R {figures['r']}) took {number(figures['wall_seconds'])} s for its REML point "
            f"estimate of the same model{state}, {number(figures['peak_mebibytes'])} MiB."
        )
    return "\n".join(out)


def brms_sentence(rows: Sequence[Row]) -> str:
    """What brms took for the posterior with the same priors."""
    out = []
    for row in rows:
        figures = row["figures"]
        if "not_measured" in figures:
            out.append(f"brms with the same priors: {figures['not_measured']}.")
            continue
        case = row["case"]
        chains = f"{case['chains']} chains of {case['tune']} warm-up and {case['draws']} kept draws"
        out.append(
            f"brms {figures['brms']} with the same priors, {chains}: "
            f"{number(figures['sampling_cpu_seconds'])} CPU s of sampling, "
            f"{number(figures['total_seconds'])} s with compilation; smallest ESS {number(figures['min_ess'])}, "
            f"{number(figures['min_ess_per_cpu_second'])} per CPU s; R-hat {figures['r_hat_max']:.3f}."
        )
    return "\n".join(out)


def short_section(result: Row) -> list[str]:
    """Short full posteriors beside lme4's point estimate of the same table."""
    rows = result.get("short", [])
    point = {
        row["case"]["size"]: row["figures"]["wall_seconds"]
        for row in result["cases"]
        if row["case"]["case"] == "lme4" and "wall_seconds" in row["figures"]
    }
    lines = []
    for row in rows:
        figures, size = row["figures"], row["case"]["size"]
        drawing = figures["sampling_seconds"] + figures["recover_seconds"]
        theirs = point.get(size)
        lines.append(
            [
                str(designs.SIZES[size]),
                number(figures["compile_seconds"]),
                number(drawing),
                number(figures["min_ess"]),
                f"{figures['max_rhat']:.3f}",
                number(theirs),
                "" if theirs is None else number(theirs / drawing),
                "" if theirs is None else number(theirs / (drawing + figures["compile_seconds"])),
            ]
        )
    if not lines:
        return []
    header = ["design", "load code s", "draw s", "ESS", "R-hat", "lme4 s", "lme4 / draw", "lme4 / (load + draw)"]
    case = rows[0]["case"]
    text = (
        f"{case['chains']} chains of {case['tune']} warm-up and {case['draws']} kept draws on the collapsed engine, "
        "compiled code on disk, beside lme4's REML fit (a point estimate, its library loaded beforehand)."
    )
    return [f"## A short posterior beside a point estimate\n\n{text}\n\n{markdown(header, lines)}"]


def million_section() -> list[str]:
    """The run of one million sessions, where it is stored."""
    path = HERE / "results" / "million.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    seconds = found["seconds"]
    sizes = f"{found['sessions']:,} sessions of {found['patients']:,} patients of {found['therapists']:,} therapists"
    chains = f"{found['chains']} chains of {found['tune']} warm-up and {found['draws']} kept draws"
    stages = ", ".join(f"{name} {number(value)} s" for name, value in seconds.items())
    text = (
        f"{sizes} from a Parquet file through DuckDB (`python -m benchmarks.million`), {chains}: {stages}; peak memory "
        f"{number(found['peak_gibibytes'])} GiB; smallest ESS "
        f"{number(min(found['ess_bulk_min'], found['ess_tail_min']))}, R-hat {found['r_hat_max']:.3f}, "
        f"{found['divergences']} divergences. Fixed effects and therapists' effects are drawn; the effects of the "
        f"patients are not kept. Measured on {found['date']}."
    )
    return [f"## One million sessions\n\n{text}"]


def by_size(rows: Sequence[Row]) -> list[str]:
    """A section for each size of table."""
    sections = []
    for name, size in designs.SIZES.items():
        mine = [row for row in rows if row["case"].get("size") == name]
        if not mine:
            continue
        sessions = size.therapists * size.patients * size.sessions
        title = f"{size.therapists} therapists x {size.patients} patients x {size.sessions} sessions"
        parts = [f"## {title} ({sessions:,} rows)"]
        full = [row for row in mine if row["case"]["case"] not in ("lme4", "brms")]
        if full:
            case = full[0]["case"]
            parts.append(f"{case['chains']} chains, {case['tune']} warm-up and {case['draws']} kept draws each.")
            parts.append(posterior_table(full))
        point = [row for row in mine if row["case"]["case"] == "lme4"]
        parts += [lme4_sentence(point)] if point else []
        bayesian = [row for row in mine if row["case"]["case"] == "brms"]
        parts += [brms_sentence(bayesian)] if bayesian else []
        sections.append("\n\n".join(parts))
    return sections


def growth_section(rows: Sequence[Row]) -> list[str]:
    """Time per gradient as sessions per patient grow."""
    mine = [row["figures"] for row in rows if row["case"]["case"] == "growth_of_cost"]
    if not mine:
        return []
    figures = mine[0]
    if "not_measured" in figures:
        return [f"## Sessions per patient\n\n{figures['not_measured']}"]
    table = markdown(
        ["sessions per patient", "microseconds"],
        [[sessions, number(us)] for sessions, us in figures["microseconds"].items()],
    )
    text = (
        f"CPU time of one log posterior and gradient of the collapsed engine, {figures['patients']} patients, median "
        f"of {figures['calls']} calls, the call from Python included. The sessions enter through cross-products."
    )
    return [f"## Sessions per patient\n\n{text}\n\n{table}"]


def startup_section(rows: Sequence[Row]) -> list[str]:
    """Seconds until something happens."""
    mine = [row for row in rows if row["case"]["group"] == "startup"]
    if not mine:
        return []
    imports = [row["figures"] for row in mine if row["case"]["case"] == "import" and "import_seconds" in row["figures"]]
    lines = []
    if imports:
        lines.append(["`import psymech`", number(statistics.median(f["import_seconds"] for f in imports))])
        lines.append(
            ["first use of `psm.fit` after that", number(statistics.median(f["first_use_seconds"] for f in imports))]
        )
    for row in mine:
        if row["case"]["case"] == "first_fit":
            what = f"new process to fitted tree, {row['case']['cache']} caches (growth, shipped study)"
            figures = row["figures"]
            lines.append([what, figures.get("not_measured") or number(figures["from_start_seconds"])])
    return [f"## Starting up\n\n{markdown(['what', 'seconds'], lines)}"]


def page(result: Row) -> str:
    """The whole page."""
    machine, versions = result["machine"], result["versions"]
    measured = (
        f"Measured on {result['date']}: {machine['cpu']}, {machine['cores']} cores, {machine['system']}, load before "
        f"the run {machine['load_before']}; seed {result['seed']}, at most {result['limit_seconds']:g} s a case. "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + "."
    )
    warning = (
        ["**A quick run on a tiny design: it shows that the benchmark works, and nothing about speed.**"]
        if result["quick"]
        else []
    )
    rows = result["cases"]
    notes = [result["note"]] if "note" in result else []
    return (
        "\n\n".join(
            [
                INTRODUCTION.strip(),
                measured,
                *notes,
                *warning,
                *by_size(rows),
                *short_section(result),
                *million_section(),
                *growth_section(rows),
                *startup_section(rows),
            ]
        )
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, nargs="?", default=HERE / "results" / "full.json")
    parser.add_argument("--out", default=str(HERE.parent / "docs" / "benchmarks.md"))
    asked = parser.parse_args()
    text = page(json.loads(asked.result.read_text(encoding="utf-8")))
    if asked.out == "-":
        print(text)
    else:
        Path(asked.out).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
