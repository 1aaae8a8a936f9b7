"""Entry point of `python -m prunejax` and of the console script; `prunejax/cli/` has the verbs."""

import sys

from prunejax.cli.command import main as main
from prunejax.cli.command import parser as parser

if __name__ == '__main__':
  sys.exit(main())
