"""Draw the figure of the README from the shipped, simulated study. Run: python docs/figures/make.py."""

from pathlib import Path

import psymech as psm

HERE = Path(__file__).resolve().parent
DOTS_PER_INCH = 90


def main() -> None:
    """Fit the study and draw its therapists."""
    data = psm.load_example("process_study")
    varying = {"patient": ["alliance"], "therapist": ["alliance"]}
    spec = psm.process("phq9", techniques=["exposure"], common_factors=["alliance"], lag=1, slopes=varying)
    fit = psm.fit(spec, data, seed=1)
    figure = psm.plot_therapists(fit, higher_is_better=False)
    figure.savefig(HERE / "therapists.png", dpi=DOTS_PER_INCH, bbox_inches="tight")


if __name__ == "__main__":
    main()
