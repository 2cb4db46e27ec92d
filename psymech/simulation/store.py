"""The simulated study as text files; ``python -m psymech.simulation.store FOLDER`` writes them."""

import sys
from collections.abc import Mapping
from pathlib import Path

from psymech.simulation.study import STUDY_SEED, ProcessStudy, process_study

FIRST_LINE = (
    "# SIMULATED by psymech.simulation.process_study(seed={seed}): no real patient or therapist is described.\n"
)


def study_files(study: ProcessStudy, *, seed: int = STUDY_SEED) -> Mapping[str, str]:
    """Return file names with their content: CSV, the first line says that the study is simulated, an empty cell is
    missing.

    Examples
    --------
    >>> from psymech.simulation import process_study
    >>> files = study_files(process_study(seed=1, therapists=3), seed=1)
    >>> sorted(files)
    ['process_study_patients.csv', 'process_study_sessions.csv', 'process_study_therapists.csv']
    """
    tables = {"sessions": study.sessions, "patients": study.patients, "therapists": study.therapists}
    first = FIRST_LINE.format(seed=seed)
    return {
        f"process_study_{name}.csv": first + table.to_csv(index=False, lineterminator="\n")
        for name, table in tables.items()
    }


if __name__ == "__main__":
    for file_name, text in study_files(process_study()).items():
        (Path(sys.argv[1]) / file_name).write_text(text, encoding="utf-8", newline="\n")
