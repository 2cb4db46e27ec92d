"""Turn the benchmarks' JSON into ``docs/benchmarks.md``.

Run: python benchmarks/table.py [--results benchmarks/results] [--out docs/benchmarks.md]; ``--out -`` prints. A file
that is not there leaves its section out; a case without figures says why.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import designs
from agreement import agreement, distance_in_sds

HERE = Path(__file__).resolve().parent
Row = dict[str, Any]

INTRODUCTION = """# Benchmarks

Made by `python benchmarks/table.py` from `benchmarks/results`; do not edit by hand. One command a question:
`make bench-samplers`, `make bench-rivals`, `make bench-scaling`. Every case runs in a process of its own, one after the
other, with a time limit; tables are simulated by `benchmarks/designs.py`.

- Compile: caches as they were. Draw: warm-up, draws, and drawing the effects. Total: building the model besides.
- ESS: the smallest effective sample size, bulk or tail, over SDs, fixed effects, therapist effects and residual SDs.
- CPU: of drawing, all cores together. Memory: the largest process's peak.
- A case that was not finished in time, or whose program is not installed, says so. A figure with R-hat above 1.01
  belongs to chains that had not mixed, and its ESS is then no gain.
"""
LACKS = """What the programs cannot express of the models here: **lme4** has one residual SD, so the two equations of a
mediation model cannot be stacked, and gives no posterior; **glmmTMB** gives no posterior; **Bambi** (0.21) has no
correlations of random effects and one equation a model, so it is compared without correlations; **pathmc** (0.4), for
path models, has one grouping level and independent slopes, and refuses ragged panels where lags enter, so it is
compared on patients' intercepts alone. brms, and PyMC or NumPyro by hand, express them all."""
NAMES = {
    "psymech": "psymech collapsed, nutpie",
    "psymech explicit": "psymech explicit, nutpie",
    "pymc": "PyMC by hand, nutpie",
    "numpyro": "NumPyro by hand",
    "brms": "brms, rstan",
    "bambi": "Bambi, nutpie",
    "pathmc": "pathmc, nutpie",
}


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
    ("compile s", lambda f: f.get("compile_seconds")),
    ("draw s", lambda f: f["sampling_seconds"] + f.get("recover_seconds", 0.0)),
    ("CPU s", lambda f: f["cpu_seconds"]),
    ("ESS", lambda f: f["min_ess"]),
    ("ESS per s", lambda f: f["min_ess_per_second"]),
    ("ESS per CPU s", lambda f: f["min_ess_per_cpu_second"]),
    ("gradients per ESS", lambda f: f.get("gradients_per_effective_draw")),
    ("R-hat", lambda f: f"{f['max_rhat']:.3f}"),
    ("divergences", lambda f: f["divergences"]),
    ("MiB", lambda f: f["peak_mebibytes"]),
)


def read(folder: Path, name: str) -> Row | None:
    """A file of results, or None where it is not there."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def conditions(result: Row) -> str:
    """When and where it was measured."""
    machine, runs = result["machine"], [row["run"] for row in result["cases"] if "run" in row]
    loads, commits = [run["load"] for run in runs], sorted({run["commit"] for run in runs})
    dates = sorted({run["date"] for run in runs}) or [result["date"]]
    text = f"Measured on {', '.join(dates)}: {machine['cpu']}, {machine['cores']} cores, {machine['system']}"
    if loads:
        text += f"; processes wanting a core when a case began: {min(loads):g} to {max(loads):g}"
    listed = ", ".join(f"{name} {v}" for name, v in result["versions"].items() if name != "psymech commit")
    return f"{text}. {listed}; psymech commit {', '.join(commits)}."


def size_title(name: str) -> str:
    """A size in words."""
    size = designs.SIZES[name]
    return f"{size.therapists} therapists x {size.patients} patients x {size.sessions} sessions ({size.rows:,} rows)"


def chains(case: Row) -> str:
    """How much was drawn."""
    return f"{case['chains']} chains, {case['tune']} warm-up and {case['draws']} kept draws each"


def sampler_sections(result: Row | None) -> list[str]:
    """Which sampler: a table for each size and model, CPU and GPU."""
    if result is None:
        return []
    cases = result["cases"]
    parts = [f"## Which sampler?\n\n{conditions(result)}"]
    for device in ("cpu", "gpu"):
        mine = [row for row in cases if row["case"]["device"] == device]
        if device == "gpu" and all("not_measured" in row["figures"] for row in mine):
            parts.append(
                "**On a GPU: not measured, for want of one.** `make bench-gpu` measures it where there is one."
            )
            continue
        for size in designs.SIZES:
            for model, words in designs.MODELS.items():
                rows = [r for r in mine if (r["case"]["size"], r["case"]["model"]) == (size, model)]
                if not any(reached(r) for r in rows):
                    continue
                lines = [
                    [f"{r['case']['engine']}, {r['case']['sampler']}", *cells(r["figures"])] for r in rows if reached(r)
                ]
                title = f"### {size_title(size)}, {model}{' on a GPU' if device == 'gpu' else ''}"
                header = ["engine, sampler", *(name for name, _ in COLUMNS)]
                parts.append(f"{title}\n\n{words}; {chains(rows[0]['case'])}.\n\n{markdown(header, lines)}")
    return [*parts, not_reached(cases)]


def reached(row: Row) -> bool:
    """Whether a case was begun."""
    return not str(row["figures"].get("not_measured", "")).startswith("not reached")


def not_reached(rows: Sequence[Row]) -> str:
    """Cases that the run's time did not suffice for; those for a GPU are told elsewhere."""
    missing = [r for r in rows if not reached(r) and r["case"].get("device", "cpu") == "cpu"]
    if not missing:
        return ""
    where = {
        f"{r['case'].get('model', r['case'].get('series', ''))} {r['case'].get('size', '')}".strip() for r in missing
    }
    return f"Not reached in the time of the run: {len(missing)} cases ({', '.join(sorted(where))})."


def cells(figures: Row) -> list[str]:
    """The columns of a posterior, or why there are none."""
    if "not_measured" in figures:
        return [why(figures), *[""] * (len(COLUMNS) - 1)]
    return [number(of(figures)) for _, of in COLUMNS]


def why(figures: Row) -> str:
    """Why there are no figures, and what was reached."""
    text = str(figures["not_measured"])
    if "reached_iterations" in figures:
        text += f"; reached iteration {figures['reached_iterations']}"
        if "iterations_per_minute" in figures:
            text += f" at {number(figures['iterations_per_minute'])} a minute"
    return text


def median_figures(rows: Sequence[Row]) -> Row:
    """Medians over repeats; of what is no number, the first."""
    good = [row["figures"] for row in rows if "not_measured" not in row["figures"]]
    if not good:
        return rows[0]["figures"]
    out = dict(good[0])
    for name, value in out.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            out[name] = statistics.median(figures[name] for figures in good)
    return out


def rival_sections(result: Row | None) -> list[str]:
    """Against the peers: a table for each model and size, draws compared with psymech's."""
    if result is None:
        return []
    parts = [f"## Against what you would pick instead\n\n{conditions(result)}", LACKS]
    pairs = dict.fromkeys((row["case"]["model"], row["case"]["size"]) for row in result["cases"])
    for model, size in pairs:
        rows = [r for r in result["cases"] if (r["case"]["model"], r["case"]["size"]) == (model, size) and reached(r)]
        by_program: dict[str, list[Row]] = {}
        for row in rows:
            by_program.setdefault(row["case"]["program"], []).append(row)
        if "psymech" in by_program:
            parts.append(rival_table(model, size, by_program))
    return [*parts, not_reached(result["cases"])]


def rival_table(model: str, size: str, by_program: dict[str, list[Row]]) -> str:
    """One table and its sentences on point estimates."""
    ours = median_figures(by_program["psymech"])
    lines, sentences = [], []
    for program, rows in by_program.items():
        figures = median_figures(rows)
        if program in ("lme4", "glmmTMB"):
            sentences.append(point_sentence(program, figures, ours, len(rows)))
            continue
        times, compared = "", ["", ""]
        if program != "psymech" and "not_measured" not in figures and "not_measured" not in ours:
            times = number(ours["min_ess_per_cpu_second"] / figures["min_ess_per_cpu_second"])
            found = agreement(ours["estimates"], figures["estimates"])
            verdict = "" if found.agrees else " **differs**"
            compared = [f"{found.worst:.1f} of {found.limit:.1f}{verdict}", f"{found.low:.2f} to {found.high:.2f}"]
        label = NAMES[program] + (f" (median of {len(rows)})" if len(rows) > 1 else "")
        lines.append([label, *cells(figures), times, *compared])
    case = by_program["psymech"][0]["case"]
    header = ["program", *(name for name, _ in COLUMNS), "psymech is faster by", "means differ by", "SD ratio"]
    note = (
        "Faster by: ratio of ESS per CPU second. Means differ by: the largest difference of a posterior mean from "
        "psymech's in Monte Carlo errors, and what chance allows among that many figures (1%). SD ratio: smallest and "
        "largest over fixed effects, SDs and residual SDs."
    )
    title = f"### {size_title(size)}, {model}\n\n{designs.MODELS[model]}; {chains(case)}."
    return "\n\n".join([title, markdown(header, lines), note, *sentences])


def point_sentence(program: str, figures: Row, ours: Row, repeats: int) -> str:
    """What a REML fit took."""
    if "not_measured" in figures:
        return f"{program}'s REML fit of the same model: {why(figures)}."
    state = "" if figures["converged"] else ", not converged by its own checks"
    state += ", singular" if figures["singular"] else ""
    text = (
        f"{program} {figures['version']} (R {figures['r']}) took {number(figures['wall_seconds'])} s "
        f"({number(figures['cpu_seconds'])} CPU s) for its REML point estimate of the same model{state}"
        f"{f', median of {repeats}' if repeats > 1 else ''}, {number(figures['peak_mebibytes'])} MiB"
    )
    if "not_measured" in ours:
        return f"{text}."
    drawing = ours["sampling_seconds"] + ours["recover_seconds"]
    apart = distance_in_sds(ours["estimates"], figures["point_estimates"])
    return (
        f"{text}; psymech's posterior, drawn in {number(drawing)} s, took "
        f"{number(drawing / figures['wall_seconds'])} times as long. The fixed effects lie within {apart:.2f} "
        "posterior SDs of psymech's means."
    )


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of log y on log x by least squares."""
    a, b = [math.log(v) for v in x], [math.log(v) for v in y]
    center = statistics.fmean(a)
    return sum((u - center) * v for u, v in zip(a, b, strict=True)) / sum((u - center) ** 2 for u in a)


GROWING = {
    "sessions, patients in proportion": ("patients", lambda c: c["patients"]),
    "sessions, patients fixed": ("sessions of each of 90 patients", lambda c: c["sessions"]),
    "therapists": ("therapists of 9,000 patients", lambda c: c["therapists"]),
    "random columns": ("random columns at both levels", lambda c: c["columns"]),
}


def scaling_sections(result: Row | None) -> list[str]:
    """How it grows: gradients by what grows, everyday fits, slopes."""
    if result is None:
        return []
    parts = [f"## How does it grow?\n\n{conditions(result)}"]
    done = [row for row in result["cases"] if "not_measured" not in row["figures"]]
    for series, (title, of) in GROWING.items():
        rows = [row for row in done if row["case"].get("series") == series and row["case"]["case"] == "gradient"]
        if len(rows) < 2:
            continue
        x = [of(row["case"]) for row in rows]
        y = [row["figures"]["gradient_seconds"] for row in rows]
        lines = [
            [number(a), number(row["figures"]["rows"]), number(1e6 * b)] for a, b, row in zip(x, y, rows, strict=True)
        ]
        text = (
            f"CPU time of one value and gradient of the collapsed engine. Slope of the logarithms: {slope(x, y):.2f} "
            f"over all, {slope(x[-2:], y[-2:]):.2f} over the last two."
        )
        parts.append(f"### By {title}\n\n{text}\n\n{markdown([title, 'sessions', 'microseconds'], lines)}")
    for series in ("patients in proportion", "patients fixed"):
        rows = [row for row in result["cases"] if row["case"].get("series") == series and reached(row)]
        if rows:
            parts.append(everyday_table(series, rows))
    return [*parts, not_reached(result["cases"])]


def everyday_table(series: str, rows: Sequence[Row]) -> str:
    """Whole fits from a table in memory."""
    lines = []
    for row in rows:
        case, f = row["case"], row["figures"]
        shape = " x ".join(f"{n:,}" for n in case["shape"])
        lines.append(
            [shape, why(f), *[""] * 6]
            if "not_measured" in f
            else [
                shape,
                number(f["rows"]),
                number(f["check_table_seconds"]),
                number(f["sampling_seconds"]),
                number(f["recover_seconds"]),
                number(f["total_seconds"]),
                number(1e6 * f["sampling_seconds"] / f["gradients_after_warmup"]),
                number(f["peak_mebibytes"]),
            ]
        )
    good = [row["figures"] for row in rows if "not_measured" not in row["figures"]]
    text = "`psm.fit` of the process model from a table in memory, 500 warm-up and 500 kept draws of 4 chains."
    if len(good) > 1:
        sessions = [f["rows"] for f in good]
        total, peak = [f["total_seconds"] for f in good], [f["peak_mebibytes"] for f in good]
        text += f" Slopes of the logarithms: time {slope(sessions, total):.2f}, memory {slope(sessions, peak):.2f}."
    header = ["therapists x patients x sessions", "sessions", "check table s", "sample s", "effects s", "total s"]
    return f"### Whole fits, {series}\n\n{text}\n\n{markdown([*header, 'us a kept gradient', 'MiB'], lines)}"


def million_section(found: Row | None) -> list[str]:
    """The run of one million sessions, where it is stored."""
    if found is None:
        return []
    seconds = found["seconds"]
    sizes = f"{found['sessions']:,} sessions of {found['patients']:,} patients of {found['therapists']:,} therapists"
    drawn = f"{found['chains']} chains of {found['tune']} warm-up and {found['draws']} kept draws"
    stages = ", ".join(f"{name} {number(value)} s" for name, value in seconds.items())
    text = (
        f"{sizes} from a Parquet file through DuckDB (`python -m benchmarks.million`), {drawn}: {stages}; peak memory "
        f"{number(found['peak_gibibytes'])} GiB; smallest ESS "
        f"{number(min(found['ess_bulk_min'], found['ess_tail_min']))}, R-hat {found['r_hat_max']:.3f}, "
        f"{found['divergences']} divergences. Fixed effects and therapists' effects are drawn; the effects of the "
        f"patients are not kept. Measured on {found['date']}, psymech commit {found['versions']['psymech commit']}."
    )
    return [f"### One million sessions\n\n{text}"]


def profile_section(found: Row | None) -> list[str]:
    """Where the time of an everyday fit goes."""
    if found is None:
        return []
    seconds = found["median_seconds"]
    total = sum(value for name, value in seconds.items() if "share" not in name)
    lines = [[name, number(1e3 * value), f"{100 * value / total:.1f}%"] for name, value in seconds.items()]
    text = (
        f"{size_title(found['size'])}, process model, 4 chains of 1000 warm-up and 1000 kept draws, compiled code on "
        f"disk, medians of {found['rounds']} rounds in one process (`python benchmarks/stages.py`): {total:.2f} s in "
        f"all. Measured on {found['date']}, load {found['load']:g}, psymech commit {found['commit']}."
    )
    starting = markdown(["starting up", "seconds"], [[k, number(v)] for k, v in found["starting_up"].items()])
    table = markdown(["stage", "milliseconds", "share"], lines)
    return [f"## Where the time of a fit goes\n\n{text}\n\n{table}\n\n{starting}"]


def estimates_section(found: Row | None) -> list[str]:
    """What reading a large fit takes."""
    if found is None:
        return []
    study = found["study"]
    text = (
        f"A fit of {study['therapists']:,} therapists, {study['patients']:,} patients and {study['sessions']:,} "
        f"sessions with {found['draws']:,} draws (`python benchmarks/estimates.py`); medians of {found['rounds']} "
        f"calls after a first one that compiles; loo, report and tables once. Measured on {found['date']}."
    )
    rows = [[name, number(each["seconds"]), number(each["cpu_seconds"])] for name, each in found["estimates"].items()]
    return [f"## Reading a large fit\n\n{text}\n\n{markdown(['call', 'seconds', 'CPU seconds'], rows)}"]


def page(folder: Path) -> str:
    """The whole page."""
    notes = folder / "profile_notes.md"
    parts = [
        INTRODUCTION.strip(),
        *rival_sections(read(folder, "rivals")),
        *sampler_sections(read(folder, "samplers")),
        *scaling_sections(read(folder, "scaling")),
        *million_section(read(folder, "million")),
        *estimates_section(read(folder, "estimates")),
        *profile_section(read(folder, "profile")),
        notes.read_text(encoding="utf-8").strip() if notes.exists() else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--out", default=str(HERE.parent / "docs" / "benchmarks.md"))
    asked = parser.parse_args()
    text = page(asked.results)
    if asked.out == "-":
        print(text)
    else:
        Path(asked.out).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
