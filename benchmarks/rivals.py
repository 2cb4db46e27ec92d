"""Against what users would pick instead: the same table, model and priors, program by program, draws compared.

Run: ``make bench-rivals``, or ``python benchmarks/rivals.py [--quick] [--limit 240] [--minutes 12]``. Figures go to
``benchmarks/results/rivals.json`` after every case; a stopped run goes on where it was. Programs that are not installed
say so: ``benchmarks/install_rivals.sh`` installs them.
"""

from collections.abc import Iterator

from harness import Case, drive

R_PACKAGES = {"brms": "brms", "lme4": "lme4", "glmmTMB": "glmmTMB"}
QUICK_ENOUGH_TO_REPEAT = (
    *((program, size) for program in ("psymech", "lme4") for size in ("small", "medium")),
    ("glmmTMB", "small"),
)
REPEATS = 3
# Model, size, programs; those of most worth first.
PLAN = (
    ("process", "small", ("psymech", "lme4", "glmmTMB", "pymc")),
    ("process", "medium", ("psymech", "lme4", "pymc", "psymech explicit")),
    ("mediation", "medium", ("psymech", "pymc")),
    ("process", "small", ("brms",)),
    ("process_uncorrelated", "small", ("psymech", "bambi")),
    ("mediation_intercepts", "small", ("psymech", "pathmc")),
    ("mediation", "medium", ("brms", "glmmTMB")),
    ("process", "large", ("psymech", "lme4")),
    ("process", "small", ("numpyro",)),
    ("process", "medium", ("glmmTMB", "brms", "numpyro")),
    ("process_uncorrelated", "medium", ("psymech", "bambi")),
    ("mediation", "medium", ("numpyro",)),
    ("process", "large", ("glmmTMB", "pymc", "brms", "numpyro")),
)


def cases(quick: bool, seed: int) -> Iterator[Case]:
    """Yield the cases in the order of their worth; repeats differ in the sampler's seed only."""
    plan = [("tiny" if quick else size, model, program) for model, size, programs in PLAN for program in programs]
    for size, model, program in dict.fromkeys(plan):
        repeats = REPEATS if (program, size) in QUICK_ENOUGH_TO_REPEAT else 1
        for repeat in range(repeats):
            yield one(program, model, size, seed, repeat, quick=quick)


def one(program: str, model: str, size: str, seed: int, repeat: int, *, quick: bool) -> Case:
    """One case."""
    case: Case = {"program": program, "model": model, "size": size, "seed": seed, "sampler_seed": seed + repeat}
    if program in ("lme4", "glmmTMB"):
        return case | {"script": "peers.py", "r_package": R_PACKAGES[program]}
    number = 500 if size == "large" else 1000
    case |= {"draws": 50, "tune": 100, "chains": 2} if quick else {"draws": number, "tune": number, "chains": 4}
    if program.startswith("psymech"):
        engine = "explicit" if program.endswith("explicit") else "collapsed"
        return case | {"script": "cases.py", "case": "fit", "engine": engine, "sampler": "nutpie"}
    if program == "brms":
        return case | {"script": "peers.py", "r_package": "brms"}
    return case | {"script": "peers.py"} | ({"needs": "rivals"} if program in ("bambi", "pathmc") else {})


if __name__ == "__main__":
    drive("rivals", cases, __doc__ or "")
