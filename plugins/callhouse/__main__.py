"""`python -m callhouse`."""

from callhouse.cli import main

main()
