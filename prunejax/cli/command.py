"""Reads the arguments, runs one verb, and turns errors that a person can correct into one line."""

import argparse
import os
import sys
from collections.abc import Sequence

from prunejax.cli import (
  bench,
  evaluate,
  export,
  extras,
  predict,
  prune,
  report,
  reproduce,
  sweep,
  train,
)

# A verb is a module with SUMMARY, EPILOG, TAKES_CONFIG (whether --config.key=value sets keys of its
# runs), `add_arguments(parser)` and `run(args, overrides)`.
VERBS = {
  'train': train,
  'sweep': sweep,
  'reproduce': reproduce,
  'report': report,
  'predict': predict,
  'export': export,
  'evaluate': evaluate,
  'prune': prune,
  'bench': bench,
}
PROGRAM = 'python -m prunejax'
STOPPED = 'run the same command again to continue'
# Errors that a person can correct. Any other exception is a defect and keeps its traceback.
CORRECTABLE = (ValueError, OSError, FloatingPointError)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command.

  Args:
    argv: the arguments after the program's name; None for those of the process.

  Returns:
    The exit status: 0; 2 for an error that a person can correct; 75 after a SIGTERM, when
    everything is saved and the same command continues; 130 after Ctrl-C.
  """
  try:
    args, overrides = parse(argv)
    extras.require('train')
    return _run(args, overrides)
  except KeyboardInterrupt:
    print(f'\nprunejax: stopped; {STOPPED}', file=sys.stderr)
    return 130
  except CORRECTABLE as error:
    if os.environ.get('PRUNEJAX_TRACEBACK'):
      raise
    return _refused(str(error))
  except Exception as error:
    advice = extras.advice(error) if isinstance(error, ImportError) else _of_memory(error)
    if not advice or os.environ.get('PRUNEJAX_TRACEBACK'):
      raise
    return _refused(advice)


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, str]]:
  """Reads a command line.

  Args:
    argv: the arguments after the program's name; None for those of the process.

  Returns:
    The arguments of the verb, and {dotted config key: value} of every --config.key=value.

  Raises:
    ValueError: an argument is missing, unknown or malformed.
  """
  args, rest = parser().parse_known_args(argv)
  overrides = {}
  for word in rest:
    key, equals, value = word.partition('=')
    if not VERBS[args.verb].TAKES_CONFIG:
      raise ValueError(f'unknown argument {word!r}; see {PROGRAM} {args.verb} --help')
    if not key.startswith('--config.') or not equals:
      raise ValueError(f'unknown argument {word!r}; config keys are set as --config.key=value')
    overrides[key.removeprefix('--config.')] = value
  return args, overrides


def parser() -> argparse.ArgumentParser:
  """The parser of every verb. It raises ValueError where argparse would end the process."""
  top = argparse.ArgumentParser(prog=PROGRAM, description='Weight pruning research in JAX.')
  top.error = _error_of(PROGRAM)
  top.add_argument('--version', action=_Version, help='print the version and exit')
  verbs = top.add_subparsers(dest='verb', required=True, metavar=f'{{{",".join(VERBS)}}}')
  for name, verb in VERBS.items():
    sub = verbs.add_parser(
      name,
      help=verb.SUMMARY,
      description=verb.SUMMARY,
      epilog=verb.EPILOG,
      allow_abbrev=False,
    )
    sub.error = _error_of(f'{PROGRAM} {name}')
    verb.add_arguments(sub)
  return top


class _Version(argparse.Action):
  """Prints the version. It is looked up only when asked for."""

  def __init__(self, *args, **kwargs):
    super().__init__(*args, nargs=0, **kwargs)

  def __call__(self, parser, namespace, values, option_string=None):
    import prunejax

    print(f'prunejax {prunejax.__version__}')
    parser.exit()


def _error_of(program):
  def error(message):
    raise ValueError(f'{message}; see {program} --help')

  return error


def _run(args, overrides):
  """Runs the verb of `args`; returns the exit status."""
  # transformers would print advice to install PyTorch.
  os.environ.setdefault('TRANSFORMERS_VERBOSITY', 'error')
  from prunejax.train import preemption

  try:
    with preemption.guard():
      # Processes have to join before anything else of jax runs.
      if 'distributed' in args:
        from prunejax.train import distributed

        distributed.start(args.distributed)
      VERBS[args.verb].run(args, overrides)
    return 0
  except preemption.Preempted as notice:
    print(f'prunejax: {notice}; {STOPPED}', file=sys.stderr)
    return preemption.RESTART


def _of_memory(error):
  """What to do where memory is too small for what was asked for; '' for another error."""
  text = str(error).strip().splitlines()[:1]
  if not isinstance(error, MemoryError) and 'RESOURCE_EXHAUSTED' not in ''.join(text):
    return ''
  return (
    f'out of memory ({"".join(text)[:200] or type(error).__name__}): take a smaller batch_size, a'
    ' larger accumulate or a smaller model'
  )


def _refused(message):
  print('prunejax:', ' '.join(message.split()), file=sys.stderr)
  return 2
