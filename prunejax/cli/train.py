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


def run(args: argparse.Namespace, overrides: dict[str, str]):
  """Trains one run and prints its final metrics.

  Raises:
    ValueError, OSError: a bad argument, config value or file.
  """
  workdir = options.workdir(args)
  from prunejax.train import configs

  config, _ = configs.load(args.config, options.ROOT)
  configs.override(config, overrides)
  # A wrong value is refused before Flax, transformers and Orbax are imported.
  from prunejax.train import recipe

  recipe.resolve(config)
  options.check_init(config.init)
  from prunejax.train import distributed, loop

  result = loop.train(config, workdir, title=pathlib.Path(args.config.split(':')[0]).stem)
  if distributed.first():
    print({name: round(value, 4) for name, value in result['metrics'].items()})
