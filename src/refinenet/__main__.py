"""`python -m refinenet` is the command `refinenet`."""

from refinenet.cli import main

main()
