"""Run the examples and write each as an executed notebook. Run: python docs/make_notebooks.py [FOLDER].

A notebook holds the hashes of its script and of the package, so that what is there already is not run again.
"""

import json
import os
import re
import sys
import tempfile
import time
from base64 import b64decode, b64encode
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
COMMITTED = EXAMPLES / "notebooks"
COLOURS = 96  # of a figure's palette
PER_CELL = 900  # seconds; an example takes less than a minute, a first compilation on a busy machine more
# The place in a warning is a path of this machine, the line after it the source at that place.
WARNING = re.compile(r"^\S*:\d+: (\w+Warning: .*)\n(?:  .*\n)?", re.MULTILINE)
SETTINGS = {"PYTENSOR_FLAGS": "blas__ldflags=", "PYTHONPATH": str(ROOT), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


def scripts() -> list[Path]:
    """Return the examples, in the order of their names."""
    return sorted(EXAMPLES.glob("*.py"))


def as_notebook(script: Path) -> nbformat.NotebookNode:
    """Return the script's cells, not executed."""
    notebook = jupytext.reads(script.read_text(encoding="utf-8"), fmt="py:percent")
    notebook.metadata = nbformat.from_dict({"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    notebook.metadata["language_info"] = {"name": "python"}
    if notebook.cells[0].source.startswith('"""'):  # the module's docstring; the title says the same
        del notebook.cells[0]
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # the same at every conversion
        cell["metadata"] = {"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {}
    return notebook


def key(script: Path) -> str:
    """SHA-256 of the script and of the package."""
    total = sha256(script.read_bytes())
    for path in sorted((ROOT / "psymech").rglob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()


def made_before(script: Path, folder: Path) -> nbformat.NotebookNode | None:
    """Return the executed notebook of this very script and package, or None."""
    path = folder / f"{script.stem}.ipynb"
    if not path.is_file():
        return None
    notebook = nbformat.read(path, as_version=4)
    return notebook if notebook.metadata.get("psymech", {}).get("sha256") == key(script) else None


def execute(script: Path) -> nbformat.NotebookNode:
    """Run the script's cells in a folder of their own, and keep what they printed and drew."""
    notebook = as_notebook(script)
    notebook.metadata["psymech"] = {"sha256": key(script)}
    # Unset, the kernel shows figures below the cell that drew them.
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"} | SETTINGS
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=PER_CELL, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        client.execute(env=environment)
    notebook.metadata["language_info"] = {"name": "python"}  # the kernel has added its version
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                output["text"] = WARNING.sub(r"\1\n", output["text"])
            if "image/png" in output.get("data", {}):
                output["data"]["image/png"] = smaller(output["data"]["image/png"])
    return notebook


def smaller(png: str) -> str:
    """Return a PNG in base64 with a palette of its own, a third of the bytes; a committed notebook stays small."""
    buffer = BytesIO()
    Image.open(BytesIO(b64decode(png))).convert("RGB").quantize(COLOURS).save(buffer, format="PNG", optimize=True)
    return b64encode(buffer.getvalue()).decode()


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write a notebook the same way each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(folder: Path = COMMITTED) -> None:
    """Bring the folder's notebooks up to date."""
    for script in scripts():
        found = made_before(script, folder)
        if found is None and folder != COMMITTED:
            found = made_before(script, COMMITTED)
        if found is None:
            start = time.perf_counter()
            found = execute(script)
            print(f"{script.stem}: run in {time.perf_counter() - start:.0f} s", flush=True)
        write(found, folder / f"{script.stem}.ipynb")
    known = {script.stem for script in scripts()}
    for path in folder.glob("*.ipynb"):
        if path.stem not in known:
            path.unlink()


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
