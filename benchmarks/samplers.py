"""Which sampler? Models x engines x samplers, smallest design first.

Run: ``make bench-samplers``, or ``python benchmarks/samplers.py [--quick] [--limit 120] [--minutes 8] [--device gpu]``.
Figures go to ``benchmarks/results/samplers.json`` after every case; a stopped run goes on where it was. With ``--device
gpu`` the samplers that run on JAX are measured there (`make bench-gpu` installs what that takes).
"""

from collections.abc import Iterator

from harness import Case, drive

MODELS = ("process", "mediation", "growth", "outcomes")
SAMPLERS = ("nutpie", "nutpie jax", "numpyro", "blackjax", "pymc")
ON_JAX = ("nutpie jax", "numpyro", "blackjax")


def cases(quick: bool, seed: int) -> Iterator[Case]:
    """Yield the cases, those of most worth first."""
    numbers = {"draws": 50, "tune": 100, "chains": 2} if quick else {"draws": 500, "tune": 500, "chains": 4}
    for device in ("cpu", "gpu"):
        for size in ("tiny",) if quick else ("small", "medium"):
            for model in MODELS[:1] if quick else MODELS:
                for engine in ("collapsed", "explicit"):
                    for sampler in SAMPLERS if device == "cpu" else ON_JAX:
                        yield {
                            "script": "cases.py",
                            "case": "fit",
                            "model": model,
                            "engine": engine,
                            "sampler": sampler,
                            "size": size,
                            "device": device,
                            "seed": seed,
                            **numbers,
                        }


if __name__ == "__main__":
    drive("samplers", cases, __doc__ or "")
