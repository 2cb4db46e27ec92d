"""Write the tables of ``docs/calibration.md`` from the results: ``python -m benchmarks.calibration.table``."""

import json
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "calibration.md"


def results() -> list[tuple[str, dict]]:
    found = [
        (path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in sorted((HERE / "results").glob("*.json"))
    ]
    return [(name, each) for name, each in found if "coverage" in each]


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ranks() -> str:
    rows = []
    for name, each in results():
        if each["truth"] is not None:
            continue
        model, engine, _ = name.rsplit("_", 2)
        checks = each["checks"]
        outside = sum(not c["in_band"] for c in checks)
        size = each["design"]
        rows.append(
            [
                model,
                engine,
                f"{size['therapists']} / {size['patients']} / {size['rows']}",
                str(each["simulations"]),
                str(each["simulations"] - each["status"].get("ok", 0)),
                str(len(checks)),
                f"{outside} ({0.05 * len(checks):.1f})",
                f"{min(c['adjusted'] for c in checks):.2g}",
                "calibrated" if each["ok"] else "NOT calibrated",
            ]
        )
    header = ["model", "engine", "therapists / patients / sessions", "simulations", "failed fits", "quantities"]
    return markdown([*header, "outside band (expected)", "smallest adjusted p", "verdict"], rows)


def cell(row: dict, prob: str) -> str:
    return f"{row[f'coverage_{prob}']:.2f} ± {row[f'se_{prob}']:.2f}"


def coverage(kind: str) -> str:
    wanted = {
        "growth": {"sd_therapist[Intercept]": "SD of therapists", "u_therapist[Intercept]": "therapist effects"},
        "mediation": {
            "indirect[m, within]": "indirect, within",
            "indirect[m, patient]": "indirect, patients",
            "indirect[m, therapist]": "indirect, therapists",
        },
    }[kind]
    rows = []
    for _, each in sorted(results(), key=lambda r: (r[1]["command"].split()[4], r[1]["design"]["therapists"])):
        if each["truth"] is None or not each["command"].split()[4].startswith(kind):
            continue
        by_name = {row["quantity"]: row for row in each["coverage"]}
        for quantity, shown in wanted.items():
            row = by_name[quantity]
            truth = each["truth"].get("sd_therapist", each["truth"].get("sd_therapist[m~Intercept]"))
            rows.append(
                [
                    f"{truth:g}",
                    str(each["design"]["therapists"]),
                    shown,
                    str(each["simulations"]),
                    cell(row, "0.5"),
                    cell(row, "0.9"),
                    f"{row['below_upper']:.2f}",
                    f"{row['mean_error']:+.2f}",
                ]
            )
    header = ["true SD of therapists", "therapists", "of", "studies", "50% interval", "90% interval"]
    return markdown([*header, "below upper end", "mean error"], rows)


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, table in (("ranks", ranks()), ("growth", coverage("growth")), ("mediation", coverage("mediation"))):
        marked = re.compile(rf"(<!-- {name} -->).*?(<!-- /{name} -->)", re.DOTALL)
        text = marked.sub(lambda m, table=table: f"{m[1]}\n{table}\n{m[2]}", text)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
