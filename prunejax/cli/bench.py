"""`bench`: how fast this machine prunes and trains, or how much a pruned model gains on it."""

import argparse
import pathlib

from prunejax.cli import options

SUMMARY = (
  'Measure how fast this machine prunes and trains, or how much a pruned RUN gains;'
  ' print a table, write JSON.'
)
EPILOG = None
TAKES_CONFIG = False
SIZE = 'base'  # where the command names none
OF_A_RUN = ('batches', 'length', 'rounds')
OF_THE_MACHINE = ('only', 'size', 'times', 'topology')


def add_arguments(parser: argparse.ArgumentParser):
  """Adds the arguments of the verb to its parser."""
  parser.add_argument(
    'where',
    nargs='?',
    metavar='RUN',
    help='a work directory or a Hugging Face folder: measure its bytes and latency',
  )
  parser.add_argument(
    '--batches',
    type=options.list_of(int),
    metavar='A,B',
    help='with RUN: examples at a time (default: 1,8)',
  )
  parser.add_argument(
    '--length',
    type=int,
    metavar='N',
    help='with RUN: tokens an example (default: the longest of the model)',
  )
  parser.add_argument(
    '--rounds', type=int, metavar='N', help='with RUN: how often each is timed (default: 25)'
  )
  parser.add_argument(
    '--only', type=options.list_of(str), metavar='A,B', help='some benches instead of all'
  )
  parser.add_argument(
    '--size', metavar='NAME', help='small, base (BERT-Base, the default) or large'
  )
  parser.add_argument(
    '--times',
    type=int,
    metavar='N',
    help='with --only=kill: how often the bench `kill` kills (default: 20)',
  )
  parser.add_argument(
    '--topology',
    type=options.list_of(str),
    metavar='A,B',
    help=(
      'measure nothing: compile the benches train, selection and population for these TPU slices'
      ' (v5e:4x4, ...), or for cpu or gpu, and print the least time, bytes, memory and collectives;'
      ' tables in runs/bench that were measured at this size stand beside it'
    ),
  )
  parser.add_argument(
    '--out',
    metavar='FILE.json',
    help='the file to write (default: runs/bench/<machine>-<size>.json)',
  )
  parser.add_argument(
    '--compare',
    nargs='+',
    metavar='FILE.json',
    help='print the tables of these files side by side; measure nothing',
  )


def run(args: argparse.Namespace, overrides: dict[str, str]):
  """Runs the benches, or those of one pruned model, or prints tables that exist.

  Raises:
    ValueError, OSError: an unknown bench or size; a bad argument or file; a bench that failed.
  """
  del overrides
  if args.out:
    from prunejax import files

    files.check_ending(args.out, '.json')
  if args.compare:
    given = [f'--{name}' for name in (*OF_A_RUN, *OF_THE_MACHINE, 'out') if _given(args, name)]
    given += [f'RUN ({args.where})'] if args.where else []
    if given:
      raise ValueError(f'bench --compare measures nothing and takes no {", ".join(given)}')
    from prunejax.bench import table

    print(table.compare(args.compare))
  elif args.where:
    _bench_model(args)
  else:
    _bench_machine(args)


def _given(args, name):
  return getattr(args, name) is not None


def _bench_model(args):
  unfit = [f'--{name}' for name in OF_THE_MACHINE if _given(args, name)]
  if unfit:
    raise ValueError(f'bench of the run {args.where!r} takes no {", ".join(unfit)}')
  options.check_model(args.where)
  from prunejax.bench import pruned_model

  given = {name: getattr(args, name) for name in (*OF_A_RUN, 'out')}
  pruned_model.run(
    args.where, **{name: value for name, value in given.items() if value is not None}
  )


def _bench_machine(args):
  for name in OF_A_RUN:
    if _given(args, name):
      raise ValueError(
        f'--{name} is for the bench of a run: python -m prunejax bench RUN --{name}=...'
      )
  if args.topology:
    _compile(args)
    return
  if args.times is not None and args.times < 1:
    raise ValueError(f'--times={args.times}: at least 1')
  if args.times is not None and 'kill' not in (args.only or ()):
    raise ValueError(f'--times={args.times} is for the bench kill, which runs with --only=kill')
  from prunejax.bench import names

  size = args.size or SIZE
  names.check(args.only, size, names.NAMES)  # refused before a bench and its libraries are imported
  from prunejax.bench import suite

  suite.run(args.only, size, times=args.times, out=args.out)


def _compile(args):
  """The benches compiled, and beside them what was measured here at the same size."""
  if args.times is not None:
    raise ValueError('--times is for the bench kill, which --topology does not compile')
  from prunejax.topology import slices

  for name in args.topology:
    slices.check(name)
  from prunejax.bench import compiled, table

  size = args.size or SIZE
  written = compiled.run(args.only, size, args.topology, out=args.out)
  measured = [
    path
    for path in sorted(pathlib.Path('runs/bench').glob(f'*-{size}.json'))
    if path not in written and 'compiled' not in table.read(path)['machine']
  ]
  paths = [*measured, *written]
  if len(paths) > 1:
    print(table.compare(paths))
