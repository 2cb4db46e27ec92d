"""The example of several outcomes runs from the shipped study to its sentences."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.sampling
def test_the_source_study_ends_with_sentences(repository: Path, tmp_path: Path) -> None:
    """A few draws only: the numbers are of no interest, every line is."""
    environment = os.environ | {"PSYMECH_EXAMPLE_DRAWS": "60", "PYTHONPATH": str(repository)}
    command = [sys.executable, str(repository / "examples" / "source_study.py")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    words = done.stdout[done.stdout.index("5. In words") :]
    for outcome in ("Psychopathology", "Social functioning", "Resources", "Coping", "Quality of life"):
        assert f"{outcome}: a better outcome clearly goes with" in words
    assert "nan" not in words
