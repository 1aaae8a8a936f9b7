"""The door of `python -m prunejax` and of the console script `prunejax`. The verbs are in `prunejax/cli/`."""

import sys

from prunejax.cli.command import main as main
from prunejax.cli.command import parser as parser

if __name__ == '__main__':
  sys.exit(main())
