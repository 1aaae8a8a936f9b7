"""The report of a sweep: a row for each setting, with the mean and interval over its seeds."""

import json
import math
import numbers

from prunejax import files
from prunejax.report import document, drawing, ledger, statistics
from prunejax.report import tables as tabular
from prunejax.train import console

ROUNDING = 1e-12  # of a mean; numbers that are equal differ by no more
LONGEST = 80  # characters of a label
MOST = 3  # metrics that are drawn, the first ones


def write(folder: files.PathLike, out: files.PathLike | None = None, say=console.say) -> dict:
  """Writes the report of what the ledger of a sweep holds so far, and prints its table.

  Args:
    folder: the work directory.
    out: where to write; None for `folder`.
    say: prints a line.

  Returns:
    {name: path} of the files.

  Raises:
    ValueError: the ledger is empty or damaged.
  """
  folder = files.path(folder)
  rows = ledger.read(folder / 'ledger.jsonl')
  if not rows:
    raise ValueError(f'{str(folder)!r} has no finished cell yet')
  name = files.read_json(folder / 'grid.json')['sweep']
  groups = settings(rows)
  table = summary(groups, f'Sweep {name}: what each setting gives')
  say(tabular.text(table))
  failed = sum(bool(row.get('failed')) for row in rows)
  written = document.write(
    folder if out is None else out,
    title=f'Sweep {name}',
    meta={'cells': len(rows), 'failed': failed},
    tables=[table],
    figures=_figures(groups),
    captions={'metrics': 'Mean of each setting, from its lowest to its highest seed.'},
  )
  say(f'report: {written["report.html"]}')
  return written


def settings(rows: list[dict]) -> list[tuple[dict, list[dict]]]:
  """Groups rows that differ in their seed alone.

  Args:
    rows: of a ledger.

  Returns:
    Pairs of {config key: value}, of the keys whose values are not the same in all rows, and rows.
  """
  text = lambda value: json.dumps(value, sort_keys=True)
  keys = dict.fromkeys(key for row in rows for key in row['config'] if key != 'seed')
  # What the sweep asked for, also where the model that was trained has another size.
  asked = [row['config'] | row.get('overrides', {}) for row in rows]
  swept = {key for row in rows for key in row.get('overrides', {})}
  finished = [config for config, row in zip(asked, rows, strict=True) if not row.get('failed')]
  # The config of a failed row lacks the sizes of the model that was trained.
  unknown = {key for key in keys if _is_size(key) and key not in swept}
  values = lambda key: {text(config.get(key)) for config in (finished if key in unknown else asked)}
  differ = [key for key in keys if len(values(key)) > 1]
  # Failed rows come last: they join the setting of finished ones, if it is the only one.
  order = sorted(range(len(rows)), key=lambda i: bool(rows[i].get('failed')))
  groups, known = {}, {}
  for i in order:
    failed = bool(rows[i].get('failed'))
    sure = text({key: asked[i].get(key) for key in differ if key not in unknown})
    mine = {key: asked[i].get(key) for key in differ if not (failed and key in unknown)}
    alike = known.setdefault(sure, {})
    name = next(iter(alike)) if failed and len(alike) == 1 else text(mine)
    alike[name] = None
    groups.setdefault(name, (mine, []))[1].append(i)
  found = sorted(groups.values(), key=lambda group: min(group[1]))
  return [(setting, [rows[i] for i in sorted(places)]) for setting, places in found]


def _is_size(key):
  """Whether a finished row has the value of the model that was trained, see `grid.effective`."""
  return key.startswith('model.') or key == 'data.vocab_size'


def summary(groups: list[tuple[dict, list[dict]]], title: str) -> tabular.Table:
  """Makes the table of what `settings` returned."""
  names = _metrics(groups)
  items = []
  for setting, rows in groups:
    failed = sum(bool(row.get('failed')) for row in rows)
    item = {key: _word(value) for key, value in setting.items()}
    item |= {'seeds': str(len(rows)), **({'failed': str(failed)} if failed else {})}
    items.append(item | {name: _estimate(_values(rows, name)) for name in names})
  return tabular.records(title, items, '± half of the 95 % interval over seeds.')


def _metrics(groups):
  """The names of the numbers that rows have, in order."""
  metrics = (row['metrics'] for _, rows in groups for row in rows)
  return list(dict.fromkeys(k for m in metrics for k, v in m.items() if _is_number(v)))


def _values(rows, name):
  return [row['metrics'][name] for row in rows if _is_number(row['metrics'].get(name))]


def _is_number(value):
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _word(value):
  return value if isinstance(value, str) else json.dumps(value)


def _label(text):
  """A text that matplotlib shows as it is, cut short."""
  text = text if len(text) <= LONGEST else f'{text[: LONGEST - 3]}...'
  return text.replace('$', r'\$')


def _estimate(values):
  if not values:
    return '-'
  mean, low, high, _ = statistics.cautious(values)
  half = (high - low) / 2
  half = 0.0 if half <= ROUNDING * abs(mean) else half
  return f'{mean:.4g}' + (f' ± {half:.2g}' if math.isfinite(half) else '')


def _figures(groups):
  """A point for each setting and metric, with a bar from the lowest seed to the highest."""
  names = [name for name in _metrics(groups) if any(_values(rows, name) for _, rows in groups)]
  names = names[:MOST]
  if not names:
    return {}
  labels = [
    _label(', '.join(f'{key.split(".")[-1]}={_word(v)}' for key, v in setting.items()) or 'all')
    for setting, _ in groups
  ]
  with drawing.canvas(3 + 2.6 * len(names), 1.2 + 0.3 * len(groups), len(names)) as (figure, axes):
    for panel, name in zip(axes, names, strict=True):
      there = [(i, _values(rows, name)) for i, (_, rows) in enumerate(groups)]
      places, values = zip(*[(i, found) for i, found in there if found], strict=True)
      means, reach = drawing.ranges(values)
      panel.errorbar(means, places, xerr=reach, fmt='o', capsize=2)
      panel.set(title=_label(name), yticks=range(len(groups)), ylim=(len(groups) - 0.5, -0.5))
      panel.set_yticklabels(labels if panel is axes[0] else [''] * len(groups))
    return {'metrics': drawing.png(figure)}
