"""`python -m recsys` is the operator's command."""

from recsys.cli import main

main()
