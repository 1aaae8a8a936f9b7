"""`train`: one run."""

import argparse
import pathlib

from prunejax.cli import options

SUMMARY = 'Train one run.'
EPILOG = f'{options.ANY_KEY} --config.prune.weights.schedule="cubic(0.9, end=1000)".'
TAKES_CONFIG = True


def add_arguments(parser: argparse.ArgumentParser):
  """Adds the arguments of the verb to its parser."""
  options.add_workdir(parser)
  parser.add_argument(
    '--config', required=True, metavar='FILE.py[:ARG]', help='a file with get_config(arg)'
  )
  options.add_distributed(parser)
  options.add_dry_run(parser)


def run(args: argparse.Namespace, overrides: dict[str, str]):
  """Trains one run and prints its final metrics, or what the run would take.

  Raises:
    ValueError, OSError: a bad argument, config value or file.
  """
  options.check_dry_run(args)
  workdir = '' if args.dry_run else options.workdir(args)
  from prunejax.train import configs

  config, _ = configs.load(args.config, options.ROOT)
  configs.override(config, overrides)
  # A wrong value is refused before Flax, transformers and Orbax are imported.
  from prunejax.train import recipe

  resolved = recipe.resolve(config)
  options.check_init(resolved.init)
  if args.dry_run:
    print(_plan(args, resolved, config.data.task))
    return
  from prunejax.train import distributed, loop

  result = loop.train(resolved, workdir, title=pathlib.Path(args.config.split(':')[0]).stem)
  if distributed.first():
    print({name: round(value, 4) for name, value in result['metrics'].items()})


def _plan(args, resolved, task):
  """What one run takes, as text."""
  title = f'train {args.config}'
  if args.topology:
    from prunejax.topology import report

    return report.of_run(resolved, title, args.topology, out=args.out or '', command=options.said())
  from prunejax.sweep import estimate

  labels = {'stage': 'finetune' if task else 'pretrain', 'task': task}
  return estimate.table([(labels, resolved)], title)
