"""Write mediation_study.csv, the simulated input of mediation.R."""

from pathlib import Path

from psymech.simulation.mediation import simulate_mediation

if __name__ == "__main__":
    study = simulate_mediation(therapists=20, patients=6, sessions=8, seed=71)
    table = study.data.sessions[["therapist", "patient", "session", "x", "m", "y"]].round(4)
    table.to_csv(Path(__file__).parent / "mediation_study.csv", index=False, lineterminator="\n")
