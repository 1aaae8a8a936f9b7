"""`reproduce`: the runs, tables and figures of a paper."""

import argparse

from prunejax.cli import options, papers

SUMMARY = "Reproduce a paper's tables and figures."
EPILOG = f'{options.ANY_KEY} --config.data.root=FOLDER.'
TAKES_CONFIG = True


def add_arguments(parser: argparse.ArgumentParser):
  """Adds the arguments of the verb to its parser."""
  options.add_workdir(parser)
  parser.add_argument('paper', help='a folder of experiments/, such as gordon2020')
  options.add_distributed(parser)
  options.add_workers(parser)
  parser.add_argument(
    '--preset', default='quick', metavar='NAME', help='size of the reproduction (default: quick)'
  )
  options.add_dry_run(parser)
  parser.add_argument(
    '--from-scratch',
    action='store_true',
    help='pre-train the small model instead of using the packaged one',
  )
  parser.add_argument(
    '--tasks',
    type=options.list_of(str),
    metavar='A,B',
    help="tasks instead of the preset's, such as glue/cola,glue/rte",
  )
  parser.add_argument(
    '--sparsities',
    type=options.list_of(float),
    metavar='A,B',
    help="sparsities instead of the preset's, such as 0.5,0.9",
  )
  parser.add_argument(
    '--seeds',
    type=options.list_of(int),
    metavar='A,B',
    help="seeds instead of the preset's, such as 0,1,2",
  )
  parser.add_argument(
    '--rates',
    type=options.list_of(float),
    metavar='A,B',
    help='learning rates of fine-tuning, such as 2e-5,5e-5',
  )
  parser.add_argument(
    '--arms',
    type=options.list_of(str),
    metavar='A,B',
    help='families of arms, such as paper,controls',
  )
  parser.add_argument(
    '--scale', type=float, metavar='FACTOR', help='factor on every number of steps, such as 0.1'
  )
  parser.add_argument(
    '--reuse', default='', metavar='DIR', help='take finished cells from this other work directory'
  )
  options.add_one_by_one(parser)


def run(args: argparse.Namespace, overrides: dict[str, str]):
  """Runs the cells of a preset that the ledger does not hold yet, then writes the report.

  Raises:
    ValueError, OSError: an unknown paper or preset; a bad argument, config value or file.
  """
  options.check_dry_run(args)
  papers.load(args.paper).reproduce(
    args.preset,
    args.workdir,
    dry_run=_compiled(args) if args.topology else args.dry_run,
    from_scratch=args.from_scratch,
    overrides=overrides,
    names=args.tasks,
    sparsities=args.sparsities,
    seeds=args.seeds,
    scale=args.scale,
    rates=args.rates,
    families=args.arms,
    worker=options.worker(args),
    one_by_one=args.one_by_one,
    reuse=args.reuse,
  )


def _compiled(args):
  """(cells, title) -> what their programs take on the topologies of the command, as text."""

  def plan(cells, title):
    from prunejax.topology import report

    how = {'one_by_one': args.one_by_one, 'out': args.out or '', 'command': options.said()}
    return report.of_cells(cells, title, args.topology, **how)

  return plan
