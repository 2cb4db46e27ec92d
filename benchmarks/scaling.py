"""How does it grow? Sessions, random columns, therapists: time per gradient, total time, memory.

Run: ``make bench-scaling``, or ``python benchmarks/scaling.py [--quick] [--minutes 6]``. Figures go to
``benchmarks/results/scaling.json`` after every case; a stopped run goes on where it was. A million sessions from a
Parquet file: ``python -m benchmarks.million --out benchmarks/results/million.json``.
"""

from collections.abc import Iterator

from harness import Case, drive

SESSIONS = 11  # a patient's, where patients grow in proportion
PATIENTS = 30  # a therapist's
FIXED_PATIENTS = 90


def cases(quick: bool, seed: int) -> Iterator[Case]:
    """Yield gradients first, then everyday fits, small before large."""
    tens = (3,) if quick else (3, 4, 5, 6)
    for power in tens:
        patients = 10**power // SESSIONS
        yield gradient("sessions, patients in proportion", patients, max(patients // PATIENTS, 3), SESSIONS)
    for power in tens:
        yield gradient("sessions, patients fixed", FIXED_PATIENTS, 3, 10**power // FIXED_PATIENTS)
    for therapists in (10,) if quick else (10, 30, 100, 300, 1000, 3000):
        yield gradient("therapists", 9000, therapists, 12)
    for columns in (4,) if quick else (1, 2, 4, 6, 8):
        yield gradient("random columns", 900, 60, 12, columns)
    numbers = {"draws": 100, "tune": 100} if quick else {"draws": 500, "tune": 500}
    shapes = ((8, 10, 12),) if quick else ((3, 28, 12), (28, 30, 12), (278, 30, 12), (2778, 30, 12))
    fixed = () if quick else ((3, 30, 111), (3, 30, 1111), (3, 30, 11111))
    for series, which in (("patients in proportion", shapes), ("patients fixed", fixed)):
        for shape in which:
            case = {"script": "cases.py", "case": "everyday", "series": series, "shape": list(shape)}
            yield case | {"seed": seed, **numbers}


def gradient(series: str, patients: int, therapists: int, sessions: int, columns: int = 4) -> Case:
    """One value and gradient of a made-up design."""
    return {
        "script": "cases.py",
        "case": "gradient",
        "series": series,
        "patients": patients,
        "therapists": therapists,
        "sessions": sessions,
        "columns": columns,
    }


if __name__ == "__main__":
    drive("scaling", cases, __doc__ or "")
