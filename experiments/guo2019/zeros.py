"""The share of zeros of each penalised run just before its cut, from the log of the run."""

import datetime
import json
import re

from prunejax import files
from prunejax.report import ledger
from prunejax.sweep import grid
from prunejax.train import console

STAGE = 'zeros'


def add_rows(cells: list, folder, preset: str, done: dict, say=console.say) -> None:
  """Add a row for each run with a proximal penalty that the ledger has no such row of.

  Args:
    cells: of the plan.
    folder: work directory, which holds the logs of the runs.
    preset: name, for the rows.
    done: {cell: row} of the ledger.
    say: prints a line.
  """
  for cell in cells:
    key = f'{grid.key(cell)}-zeros'
    if cell.labels['arm'] != 'rpp' or cell.labels['stage'] != 'pretrain' or key in done:
      continue
    path = files.path(folder) / 'cells' / grid.key(cell) / 'metrics.jsonl'
    if not files.exists(path):
      say(f'{grid.describe(cell.labels)}: no log of the run, so no share of zeros')
      continue
    row = {
      'cell': key,
      'experiment': 'guo2019',
      'preset': preset,
      **cell.labels,
      'stage': STAGE,
      'metrics': before_the_cut(files.read(path, 2**26).decode(), cut_of(cell.config)),
      'versions': grid.versions(),
      'time': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    }
    ledger.append(files.path(folder) / 'ledger.jsonl', row)
    done[key] = row


def cut_of(config) -> int:
  """The step of the one cut of a penalised run."""
  return int(re.search(r'at=(\d+)', config.prune.weights.schedule)[1])


def before_the_cut(log: str, cut: int) -> dict:
  """Read the last share of zeros that was logged before the cut.

  Args:
    log: text of metrics.jsonl.
    cut: step of the cut, counted from 0; row `step` of the log is written after that many steps.

  Returns:
    'zeros', the share of the prunable weights; 'zeros_step', the steps taken until then.
  """
  rows = [json.loads(line) for line in log.splitlines()]
  rows = [row for row in rows if row.get('zeros') is not None and row['step'] <= cut]
  return {'zeros': rows[-1]['zeros'], 'zeros_step': rows[-1]['step']} if rows else {}
