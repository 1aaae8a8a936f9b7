"""Compressing BERT (Gordon, Duh & Andrews 2020): the cells of its grid, and the report of their ledger."""

from experiments.gordon2020 import presets, probes
from experiments.gordon2020.arms import plan
from experiments.gordon2020.report import compare, redraw, write_report
from prunejax.sweep import estimate, grid
from prunejax.sweep import reuse as reusing
from prunejax.train import console, distributed

__all__ = ['compare', 'plan', 'redraw', 'reproduce', 'write_report']
PAPER = 'gordon2020'


def reproduce(
  preset,
  workdir,
  *,
  dry_run=False,
  from_scratch=False,
  overrides=None,
  worker=(0, 1),
  one_by_one=False,
  reuse='',
  say=console.say,
  **part,
):
  """Runs what the ledger lacks, then writes the report.

  Of several workers, (index, count), each runs its share, and the one that ends last writes the report. `reuse` is
  another work directory, whose cells are taken where they are the same. `part` is a part of the preset's grid, see
  `arms.plan`. Raises ValueError for an unknown preset, part or key.
  """
  overrides = overrides or {}
  whole = plan(preset, overrides, from_scratch, **part)
  cells = grid.share(whole, worker)
  if dry_run:
    title = f'{PAPER} {preset}: {presets.PRESETS[preset]().cost}'
    say(estimate.table([(cell.labels, cell.config) for cell in cells], title=title))
    if workdir:
      say(
        f'{len(grid.missing(cells, workdir))} of {len(cells)} cells are missing from the ledger of {workdir}'
      )
    return None
  if reuse:
    reusing.rows(reuse)  # wrong input is told before anything is written
  # Another part of the same grid may join a ledger; what changes the numbers of a cell may not.
  what = {
    'paper': PAPER,
    'preset': preset,
    'from_scratch': from_scratch,
    'scale': part.get('scale') or 1.0,
  }
  what |= {
    k: str(v)
    for k, v in overrides.items()
    if not k.startswith(('data.root', 'data.cache', 'population.'))
  }
  folder = grid.claim(workdir or f'runs/{PAPER}-{preset}', what)
  if reuse and distributed.first():
    reusing.take(cells, folder, reuse, experiment=PAPER, preset=preset, say=say)
  grid.run(cells, folder, experiment=PAPER, preset=preset, one_by_one=one_by_one, say=say)
  left = grid.missing(whole, folder)
  if left and distributed.first():
    say(f'{len(left)} cells are left to other workers; the last one to end writes the report')
  elif distributed.first():
    probes.measure(whole, folder, experiment=PAPER, preset=preset, say=say)
  return write_report(folder, say) if distributed.first() and not left else None
