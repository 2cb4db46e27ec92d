"""A fit in a process of its own, summed up in one line: python -m tests.inference.fresh_process ENGINE [first].

With ``first`` another model is compiled and sampled before, so that this process holds compiled functions of both.
"""

import hashlib
import sys

import psymech as psm
from tests.inference.studies import small_data

OPTIONS: dict = {"draws": 50, "tune": 100, "chains": 2, "cores": 1, "seed": 7, "progressbar": False}
RANDOM: dict = {"patient": ["time"], "therapist": []}
SPECS = {"explicit": psm.growth("y", family="student", random=RANDOM), "collapsed": psm.growth("y", random=RANDOM)}
OTHER = psm.growth("y", random={"patient": []})


def digest(spec: psm.ModelSpec, engine: str) -> str:
    """Checksum of all draws and sampler statistics."""
    model = psm.build_model(spec, small_data(1), engine=engine)  # pyright: ignore[reportArgumentType]
    tree = psm.sample(model, **OPTIONS)
    total = hashlib.sha256()
    for group in ("posterior", "sample_stats"):
        for name, array in sorted(tree[group].dataset.data_vars.items()):
            total.update(str(name).encode() + array.values.tobytes())
    return total.hexdigest()


if __name__ == "__main__":
    if "first" in sys.argv:
        digest(OTHER, sys.argv[1])
    print(digest(SPECS[sys.argv[1]], sys.argv[1]))
