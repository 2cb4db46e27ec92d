"""``python -m psymech``: the command line."""

from psymech.cli import main

main()
