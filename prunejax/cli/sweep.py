"""`sweep`: every cell of a config that has sweep()."""

import argparse

from prunejax.cli import options, train

SUMMARY = 'Run every cell of a config that has sweep(), once each.'
EPILOG = train.EPILOG
TAKES_CONFIG = True


def add_arguments(parser: argparse.ArgumentParser):
  """Adds the arguments of the verb to its parser."""
  train.add_arguments(parser)
  options.add_workers(parser)
  options.add_one_by_one(parser)


def run(args: argparse.Namespace, overrides: dict[str, str]):
  """Runs the cells that the ledger of the work directory lacks, or prints what they would take.

  Raises:
    ValueError, OSError: a bad argument, config value or file; a config without sweep().
  """
  options.check_dry_run(args)
  workdir = (args.workdir or '') if args.dry_run else options.workdir(args)
  from prunejax.train import configs

  config, module = configs.load(args.config, options.ROOT)
  if not hasattr(module, 'sweep'):
    raise ValueError(
      f'{args.config} has no sweep(): expected a function that yields flat dicts of config keys'
    )
  configs.override(config, overrides)
  changes = list(module.sweep())
  for key in overrides:
    if changes and all(key in change for change in changes):
      raise ValueError(
        f'--config.{key}={overrides[key]}: sweep() of {args.config} sets {key} of every cell: leave'
        ' it out, or change sweep()'
      )
  # A wrong value is refused before Flax, transformers and Orbax are imported.
  from prunejax.train import recipe

  for change in changes:
    one = configs.override(config.copy_and_resolve_references(), change)
    recipe.resolve(one)
    options.check_init(one.init)
  from prunejax.sweep import grid

  if args.dry_run:
    print(_plan(args, grid.sweep_cells(config, changes, workdir, name=module.__name__), workdir))
    return
  name = module.__name__
  how = {'worker': options.worker(args), 'one_by_one': args.one_by_one}
  grid.sweep(config, changes, workdir, name=name, **how)
  from prunejax.sweep import summary
  from prunejax.train import distributed

  cells = grid.sweep_cells(config, changes, workdir, name=name)
  if distributed.first() and not grid.missing(cells, workdir):  # the last worker to end
    summary.write(workdir)


def _plan(args, cells, workdir):
  """What the cells of this worker take that the ledger of `workdir` lacks, as text."""
  from prunejax.sweep import estimate, grid

  cells, title, lines = grid.share(cells, options.worker(args)), f'sweep {args.config}', []
  if workdir:
    left = grid.missing(cells, workdir)
    lines.append(f'{len(left)} of {len(cells)} cells are missing from the ledger of {workdir}')
    lines += [f'  {grid.describe(cell.labels)}' for cell in left]
    cells = left
  if args.topology:
    from prunejax.topology import report

    how = {'one_by_one': args.one_by_one, 'out': args.out or '', 'command': options.said()}
    text = report.of_cells(cells, title, args.topology, **how)
  else:
    text = estimate.table(grid.planned(cells), title)
  return '\n'.join([text, *lines])
