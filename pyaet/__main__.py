"""`python -m pyaet` is the `pyaet` command."""

from pyaet.cli import main

main()
