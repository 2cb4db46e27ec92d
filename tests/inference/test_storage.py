"""save() and load(): exact round trips, in a fresh process too, and no damaged file that passes for a fit."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

import psymech as psm
from psymech import names
from psymech.inference.storage import ATTR_PARTS, ATTR_SHA256
from psymech.reporting.privacy import mask
from tests.posterior.fitted_trees import make_tree
from tests.report.test_privacy import uneven

FORMATS = (".nc", ".zarr")
N_FLIPS = 150
N_CUTS = 25


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    made = make_tree(chains=2, draws=40)
    made.attrs |= {"compile_seconds": 1.5, "nothing": float("nan"), "note": "Größe ≥ 3 – “ja”"}
    return made


@pytest.fixture(params=FORMATS)
def ending(request: pytest.FixtureRequest) -> str:
    return request.param


def files(path: Path) -> list[Path]:
    return sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]


def python(code: str, *arguments: str | Path, root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, timeout=240)


def test_round_trip_is_exact(tree: xr.DataTree, ending: str, tmp_path: Path):
    path = psm.save(tree, tmp_path / f"fit{ending}")
    xr.testing.assert_identical(psm.load(path), tree)
    assert [each.name for each in tmp_path.iterdir()] == [f"fit{ending}"]


def test_types_survive(tree: xr.DataTree, ending: str, tmp_path: Path):
    loaded = psm.load(psm.save(tree, tmp_path / f"fit{ending}"))
    assert loaded["sample_stats"]["diverging"].dtype == np.dtype(bool)
    assert loaded["sample_stats"]["n_steps"].dtype == tree["sample_stats"]["n_steps"].dtype
    assert loaded["posterior"]["beta"].dtype == np.dtype("float64")


def test_nan_and_signed_zero_survive_to_the_bit(tree: xr.DataTree, ending: str, tmp_path: Path):
    copy = tree.copy(deep=True)
    beta = copy["posterior"]["beta"].values
    beta[0, 0, :3] = [np.nan, -0.0, np.inf]
    loaded = psm.load(psm.save(copy, tmp_path / f"fit{ending}"))
    assert loaded["posterior"]["beta"].values.tobytes() == beta.tobytes()


@pytest.mark.parametrize(
    "ids",
    [
        np.array([2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 7, 0], dtype=np.int64),
        np.array([2**53 + 1, 2**63 + 1, 2**64 - 1, 1, 2, 3], dtype=np.uint64),
        np.array(["Müller", "Ørsted", "山田", "", " 007", "7"], dtype=object),
        np.array(["NA", "nan", "None", "null", "-1", "1e5"], dtype="<U4"),
    ],
    ids=["int64", "uint64", "text", "fixed-width text"],
)
def test_ids_are_exact(ids: np.ndarray, ending: str, tmp_path: Path):
    made = make_tree(chains=2, draws=10, therapist_ids=ids)  # type: ignore[arg-type]
    loaded = psm.load(psm.save(made, tmp_path / f"fit{ending}"))["posterior"]["therapist"].values
    assert loaded.tolist() == ids.tolist()
    if ids.dtype.kind in "iu":
        assert loaded.dtype == ids.dtype


ESTIMATES = """
import json, sys
import psymech as psm
tree = psm.load(sys.argv[1])
heavy = sorted({"pymc", "pytensor"} & set(sys.modules))
table = psm.summarize_therapists(tree)
shares = psm.variance_partition(tree)["share"]
print(json.dumps({
    "therapists": json.loads(table.to_json(double_precision=15)),
    "effects": json.loads(psm.effects(tree).to_json(double_precision=15)),
    "shares": shares.values.sum().hex(),
    "verdict": psm.check_sampling(tree).verdict,
    "heavy": heavy,
}))
"""


def test_estimates_in_a_fresh_process_are_the_same(tree: xr.DataTree, ending: str, tmp_path: Path, repository: Path):
    path = psm.save(tree, tmp_path / f"fit{ending}")
    done = python(ESTIMATES, path, root=repository)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["therapists"] == json.loads(psm.summarize_therapists(tree).to_json(double_precision=15))
    assert found["effects"] == json.loads(psm.effects(tree).to_json(double_precision=15))
    assert found["shares"] == psm.variance_partition(tree)["share"].values.sum().hex()
    assert found["heavy"] == []
    assert found["verdict"] == psm.check_sampling(tree).verdict


def test_other_programs_read_the_file(tree: xr.DataTree, ending: str, tmp_path: Path):
    path = psm.save(tree, tmp_path / f"fit{ending}")
    with xr.open_datatree(path, engine="netcdf4" if ending == ".nc" else "zarr") as opened:
        assert len(opened.attrs[ATTR_SHA256]) == 64
        assert "posterior/beta" in json.loads(opened.attrs[ATTR_PARTS])
        np.testing.assert_array_equal(opened["posterior"]["beta"].values, tree["posterior"]["beta"].values)


def test_no_pickle_is_written(tree: xr.DataTree, tmp_path: Path):
    path = psm.save(tree, tmp_path / "fit.zarr")
    text = "".join(each.read_text() for each in path.rglob(".z*"))
    assert "vlen-utf8" in text
    assert "pickle" not in text.lower()


def test_large_variables_are_one_file_a_chain(tree: xr.DataTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("psymech.inference.storage.ONE_CHUNK_BYTES", 1000)
    path = psm.save(tree, tmp_path / "fit.zarr")
    blocks = [each for each in (path / "posterior" / "beta").iterdir() if not each.name.startswith(".")]
    assert len(blocks) == tree["posterior"].sizes["chain"]
    xr.testing.assert_identical(psm.load(path), tree)


def test_saving_again_replaces(tree: xr.DataTree, ending: str, tmp_path: Path):
    path = psm.save(make_tree(chains=2, draws=10), tmp_path / f"fit{ending}")
    psm.save(tree, path)
    xr.testing.assert_identical(psm.load(path), tree)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_the_tree_itself_is_not_changed(tree: xr.DataTree, ending: str, tmp_path: Path):
    before = tree.copy(deep=True)
    psm.save(tree, tmp_path / f"fit{ending}", data=False)
    xr.testing.assert_identical(tree, before)


# Without data


@pytest.fixture
def secretive(ending: str, tmp_path: Path) -> tuple[xr.DataTree, Path]:
    """A tree whose outcome, design and notes hold values that can be looked for."""
    made = make_tree(chains=2, draws=10)
    made["observed_data"]["y"].values[:] = 987654.25
    made["constant_data"]["X"].values[:, 1] = 123456.75
    means = {names.mean_of_unit("patient"): (("patient", names.COLUMN), np.full((30, 1), 123456.75))}
    constant = made["constant_data"].to_dataset().assign(means).assign_coords({names.COLUMN: ["alliance"]})
    made["constant_data"] = xr.DataTree(constant)
    made.attrs[names.ATTR_NOTES] = json.dumps(["patient P0001 has 987654.25"])
    return made, psm.save(made, tmp_path / f"fit{ending}", data=False)


def test_without_data_no_row_is_left(secretive: tuple[xr.DataTree, Path]):
    loaded = psm.load(secretive[1])
    assert "observed_data" not in loaded.children
    for node in loaded.subtree:
        assert not {names.OBS, names.COLUMN} & set(node.sizes)
        for variable in node.to_dataset().variables.values():
            if variable.dtype.kind == "f":
                assert not np.isin(variable.values, [987654.25, 123456.75]).any()
    assert "987654" not in json.dumps(loaded.attrs, default=str)


def test_without_data_the_draws_are_there(secretive: tuple[xr.DataTree, Path]):
    made, path = secretive
    loaded = psm.load(path)
    xr.testing.assert_identical(loaded["posterior"].to_dataset(), made["posterior"].to_dataset())
    therapist_of_patient = loaded["constant_data"]["therapist_of_patient"].values
    np.testing.assert_array_equal(therapist_of_patient, made["constant_data"]["therapist_of_patient"].values)
    assert psm.therapist_effects(loaded).equals(psm.therapist_effects(made))


@pytest.mark.parametrize(
    "estimate",
    [psm.variance_partition, psm.r2, psm.expected_trajectories, lambda tree: psm.caseload(tree, level="patient")],
)
def test_without_data_estimates_that_need_it_say_so(estimate: Callable, secretive: tuple[xr.DataTree, Path]):
    with pytest.raises(psm.DataError, match=r"saved without them \(data=False\)"):
        estimate(psm.load(secretive[1]))


def test_without_data_caseloads_stay_but_no_sessions_of_few_patients(tmp_path: Path):
    sizes = [8, 5, 4, 1]
    made = uneven(sizes)
    path = psm.save(made, tmp_path / "fit.nc", data=False)
    loaded = psm.load(psm.save(psm.load(path), tmp_path / "again.nc", data=False))
    whole, kept = psm.caseload(made), psm.caseload(loaded)
    assert kept["n_patients"].tolist() == whole["n_patients"].tolist() == sizes
    assert kept["n_sessions"][:2].tolist() == whole["n_sessions"][:2].tolist()
    assert kept["n_sessions"][2:].isna().all()
    table = psm.summarize_therapists(loaded)
    rest = ["mean", "sd", "expected_rank", "reliability", "n_patients"]
    pd.testing.assert_frame_equal(table[rest], psm.summarize_therapists(made)[rest])
    assert table["raw_mean"].isna().all()
    assert mask(loaded, anonymize=True, min_patients=5, seed=1).hidden == (
        mask(made, anonymize=True, min_patients=5, seed=1).hidden
    )
    psm.save(loaded, tmp_path / "population.nc", level="population")
    assert not any("n_patients" in str(name) for node in psm.load(tmp_path / "population.nc").subtree for name in node)


# Damage


def flipped(content: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 1 << bit
    return bytes(changed)


def test_every_flipped_bit_is_found(tree: xr.DataTree, ending: str, tmp_path: Path):
    path = psm.save(tree, tmp_path / f"fit{ending}")
    everything = files(path)
    rng = np.random.default_rng(20240501)
    for k in range(N_FLIPS):
        victim = everything[k % len(everything)]
        content = victim.read_bytes()
        victim.write_bytes(flipped(content, int(rng.integers(len(content))), int(rng.integers(8))))
        with pytest.raises(psm.DataError):
            psm.load(path)
        victim.write_bytes(content)
    xr.testing.assert_identical(psm.load(path), tree)


def test_every_truncation_is_found(tree: xr.DataTree, tmp_path: Path):
    path = psm.save(tree, tmp_path / "fit.nc")
    content = path.read_bytes()
    for size in np.linspace(0, len(content) - 1, N_CUTS, dtype=int):
        path.write_bytes(content[:size])
        with pytest.raises(psm.DataError, match="not a complete psymech fit"):
            psm.load(path)


def test_a_deleted_block_is_named(tree: xr.DataTree, tmp_path: Path):
    path = psm.save(tree, tmp_path / "fit.zarr")
    (path / "posterior" / "u_therapist" / "0.0.0.0").unlink()
    with pytest.raises(psm.DataError, match=r"not a complete psymech fit: posterior/u_therapist/0\.0\.0\.0 missing"):
        psm.load(path)


def test_a_changed_block_is_named(tree: xr.DataTree, tmp_path: Path):
    path = psm.save(tree, tmp_path / "fit.zarr")
    block = path / "posterior" / "sigma" / "0.0"
    block.write_bytes(flipped(block.read_bytes(), 40, 3))
    with pytest.raises(psm.DataError, match=r"damaged: the checksum \(sha256\) of posterior/sigma/0\.0 differs"):
        psm.load(path)


def test_a_store_without_its_list_is_refused(tree: xr.DataTree, tmp_path: Path):
    path = psm.save(tree, tmp_path / "fit.zarr")
    (path / ".psymech.sha256").unlink()
    with pytest.raises(psm.DataError, match=r"list '\.psymech\.sha256' that psymech\.save writes is missing"):
        psm.load(path)


def test_values_changed_by_another_program_are_found(tree: xr.DataTree, tmp_path: Path):
    """The bytes agree with their own checksum, the values do not with theirs: the second lock."""
    from psymech.inference import seal

    path = psm.save(tree, tmp_path / "fit.zarr")
    sigma = zarr.open_group(path, mode="r+")["posterior/sigma"]
    sigma[0, 0] += 1.0  # type: ignore[index]
    seal.seal(path)
    with pytest.raises(psm.DataError, match=r"damaged: its checksum differs .* in posterior/sigma"):
        psm.load(path)


DISK_FULL = """
import resource, sys
import psymech as psm
tree = psm.load(sys.argv[1])
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for limit in (1_000, 60_000, 300_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        psm.save(tree, sys.argv[2])
    except psm.DataError as problem:
        print(problem)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_full_disk_leaves_the_old_file(ending: str, tmp_path: Path, repository: Path):
    old = make_tree(chains=2, draws=10, seed=3)
    target = psm.save(old, tmp_path / f"fit{ending}")
    before = {str(each): each.read_bytes() for each in files(target)}
    big = psm.save(make_tree(chains=4, draws=400), tmp_path / "big.nc")
    done = python(DISK_FULL, big, target, root=repository)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"Could not write 'fit{ending}' whole") == 3
    assert done.stdout.count("is as it was") == 3
    assert {str(each): each.read_bytes() for each in files(target)} == before
    xr.testing.assert_identical(psm.load(target), old)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(["big.nc", target.name])


def test_a_file_that_reads_back_differently_takes_no_name(
    tree: xr.DataTree, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from psymech.inference import storage

    write = storage._write

    def forgetful(groups, attrs, path, format_):
        groups = {**groups, "/posterior": groups["/posterior"].assign(sigma=groups["/posterior"]["sigma"] * 0)}
        write(groups, attrs, path, format_)

    monkeypatch.setattr(storage, "_write", forgetful)
    with pytest.raises(psm.DataError, match="read back differs in posterior/sigma"):
        psm.save(tree, tmp_path / f"fit{ending}")
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_renamed_leaves_the_old_one(
    tree: xr.DataTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import os

    path = psm.save(make_tree(chains=2, draws=10, seed=3), tmp_path / "fit.zarr")
    before = psm.load(path)
    replace, calls = os.replace, []

    def second_fails(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError("no")
        replace(source, target)

    monkeypatch.setattr("psymech.inference.storage.os.replace", second_fails)
    with pytest.raises(psm.DataError, match="is as it was"):
        psm.save(tree, path)
    xr.testing.assert_identical(psm.load(path), before)
    assert [each.name for each in tmp_path.iterdir()] == ["fit.zarr"]


def test_what_late_writers_bring_back_is_removed_too(tmp_path: Path):
    """One of zarr's writers fails, and others go on for a while in the folder that is being removed."""
    from psymech.inference.storage import _remove

    folder = tmp_path / "half.zarr" / "posterior"
    folder.mkdir(parents=True)

    def write() -> None:
        for k in range(6):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                (folder / str(k)).write_text("late")
            except FileNotFoundError:  # removed between the two lines
                continue
            time.sleep(0.02)

    writer = threading.Thread(target=write)
    writer.start()
    _remove(folder.parent)
    writer.join()
    assert list(tmp_path.iterdir()) == []


# What is refused


@pytest.mark.parametrize("version", ["0.2.0", "1.0.0", "0.10.3"])
def test_newer_version_is_refused(version: str, tree: xr.DataTree, ending: str, tmp_path: Path):
    other = tree.copy()
    other.attrs = {**tree.attrs, names.ATTR_VERSION: version}
    path = psm.save(other, tmp_path / f"fit{ending}")
    with pytest.raises(psm.DataError, match=rf"written by psymech {version}, which is newer than this one"):
        psm.load(path)


def test_older_version_is_refused_and_a_later_patch_read(
    tree: xr.DataTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = psm.save(tree, tmp_path / "fit.nc")
    monkeypatch.setattr("psymech.inference.storage.__version__", "0.2.0")
    with pytest.raises(psm.DataError, match=r"written by psymech 0\.1\.0; this is 0\.2\.0.*Read it with psymech 0\.1"):
        psm.load(path)
    monkeypatch.setattr("psymech.inference.storage.__version__", "0.1.7")
    xr.testing.assert_identical(psm.load(path), tree)


def test_a_version_that_is_none_is_refused(tree: xr.DataTree, tmp_path: Path):
    other = tree.copy()
    other.attrs = {**tree.attrs, names.ATTR_VERSION: "yesterday"}
    with pytest.raises(psm.DataError, match="'yesterday' of psymech, which is no version number"):
        psm.load(psm.save(other, tmp_path / "fit.nc"))


@pytest.mark.parametrize("name", ["fit", "fit.csv", "fit.nc.gz", "fit.pkl"])
def test_other_endings_are_refused(name: str, tree: xr.DataTree, tmp_path: Path):
    for call in (lambda: psm.save(tree, tmp_path / name), lambda: psm.load(tmp_path / name)):
        with pytest.raises(psm.DataError, match=r"ends in \.nc or \.zarr, found"):
            call()


def test_what_is_not_there_is_refused(ending: str, tmp_path: Path):
    with pytest.raises(psm.DataError, match="There is no 'fit"):
        psm.load(tmp_path / f"fit{ending}")


def test_a_folder_that_is_not_there_is_refused(tree: xr.DataTree, ending: str, tmp_path: Path):
    with pytest.raises(psm.DataError, match=r"folder .*nowhere' does not exist"):
        psm.save(tree, tmp_path / "nowhere" / f"fit{ending}")


@pytest.mark.parametrize("content", [b"", b"patient;session\n1;1\n", b"\x89HDF\r\n\x1a\n" + bytes(500)])
def test_files_that_are_no_fit_are_refused(content: bytes, tmp_path: Path):
    path = tmp_path / "fit.nc"
    path.write_bytes(content)
    with pytest.raises(psm.DataError, match="not a complete psymech fit"):
        psm.load(path)


def test_a_tree_of_another_program_is_refused(tmp_path: Path, ending: str):
    other = xr.DataTree.from_dict({"/posterior": xr.Dataset({"x": ("draw", np.arange(3.0))})})
    path = tmp_path / f"fit{ending}"
    with pytest.raises(psm.DataError, match="expected a fitted tree with the attribute 'psymech_version'"):
        psm.save(other, path)
    other.to_netcdf(path) if ending == ".nc" else other.to_zarr(path, zarr_format=2)
    with pytest.raises(psm.DataError, match="never was a fit"):
        psm.load(path)


def test_folders_that_are_no_store_are_not_touched(tree: xr.DataTree, tmp_path: Path):
    for name in ("fit.nc", "fit.zarr"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "letter.txt").write_text("keep me")
        with pytest.raises(psm.DataError):
            psm.save(tree, tmp_path / name)
        with pytest.raises(psm.DataError):
            psm.load(tmp_path / name)
        assert [each.name for each in (tmp_path / name).iterdir()] == ["letter.txt"]


def test_what_a_file_cannot_hold_is_named(tree: xr.DataTree, tmp_path: Path, ending: str):
    mixed = tree.copy()
    mixed["extra"] = xr.DataTree(xr.Dataset({"ids": ("unit", np.array(["a", 1], dtype=object))}))
    with pytest.raises(psm.DataError, match="extra/ids mixes text with int"):
        psm.save(mixed, tmp_path / f"fit{ending}")
    dated = tree.copy()
    dated["extra"] = xr.DataTree(xr.Dataset({"day": ("unit", np.array(["2024-05-01"], dtype="M8[ns]"))}))
    with pytest.raises(psm.DataError, match="extra/day is of type datetime64"):
        psm.save(dated, tmp_path / f"fit{ending}")
    noted = tree.copy()
    noted.attrs = {**tree.attrs, "settings": {"a": 1}}
    with pytest.raises(psm.DataError, match="attribute 'settings' of '/' is of type dict"):
        psm.save(noted, tmp_path / f"fit{ending}")
    assert list(tmp_path.iterdir()) == []


def test_text_that_netcdf_would_cut_is_not_saved(tree: xr.DataTree, tmp_path: Path):
    cut = tree.copy()
    cut["extra"] = xr.DataTree(xr.Dataset({"ids": ("unit", np.array(["a\0b", "c"], dtype=object))}))
    with pytest.raises(psm.DataError, match=r"Could not write 'fit\.nc' whole"):
        psm.save(cut, tmp_path / "fit.nc")
    assert list(tmp_path.iterdir()) == []
