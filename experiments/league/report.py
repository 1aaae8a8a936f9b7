"""The tables and figures of the report, from the ledger."""

from experiments.league import arms, standing
from experiments.league.claims import BASELINE, JUDGED_AT
from prunejax.report import drawing, statistics, verdicts
from prunejax.report import tables as tabular

CAPTIONS = {
  'league': (
    'Each method against gradual magnitude with the same seed, better to the right: by held-out '
    'loss after pre-training, and by accuracy. Dots are seeds. Bars are 95 % intervals of the mean '
    'that account for the few seeds; the edge of the panel cuts them off.'
  ),
  'curves': 'Held-out accuracy and held-out pre-training loss against sparsity.',
}


def tables(rows: list[dict]) -> list[tabular.Table]:
  """Tabulate the league and the differences to gradual magnitude."""
  results = standing.results(rows)
  return [league(results, standing.prices(rows)), differences(results)]


def league(results: dict, prices: dict | None = None) -> tabular.Table:
  """Tabulate one line a method, sorted by mean rank.

  Args:
    results: of `standing.results`.
    prices: of `standing.prices`.
  """
  prices = prices or {}
  levels = standing.levels(results)
  judged = {measure: _judged(results, measure) for measure in JUDGED_AT}
  score_ranks, loss_ranks = (
    standing.ranks(results, judged[measure], measure) for measure in ('score', 'loss')
  )
  names = sorted(
    {name for name, _ in results},
    key=lambda name: (
      name != standing.DENSE,
      loss_ranks.get(name, 99),
      score_ranks.get(name, 99),
      name,
    ),
  )
  last = (judged['loss'] or [0.0])[-1]  # 0 where only the dense models have rows yet
  lines = []
  for name in names:
    by_level = {s: result for (method, s), result in results.items() if method == name}
    at = lambda s, by_level=by_level, name=name: by_level.get(0.0 if name == standing.DENSE else s)
    line = {
      'method': name,
      'family': next(iter(by_level.values())).family,
      'rank': _show(loss_ranks.get(name), '.1f'),
      'by accuracy': _show(score_ranks.get(name), '.1f'),
    }
    for s in levels:
      estimate = statistics.bootstrap(at(s).score.values() if at(s) else [])
      line[f'acc {s:g}'] = f'{100 * estimate.mean:.1f}' if estimate.n else '-'
    for s in levels:
      losses = at(s).loss.values() if at(s) else ()
      line[f'loss {s:g}'] = f'{statistics.mean(losses):.3f}' if losses else '-'
    kept = sorted(set(at(last).kept.values())) if at(last) else []
    line[f'kept {last:g}'] = ' to '.join(f'{k:,}' for k in dict.fromkeys(kept[:1] + kept[-1:]))
    line[f'kept {last:g}'] = line[f'kept {last:g}'] or '-'
    # The student is the baseline's model.
    price = prices.get(
      arms.BASELINE if name == arms.TAUGHT else name, standing.Price(None, None, None)
    )
    file_bytes = 4 * standing.WHOLE if name == standing.DENSE else price.file_bytes
    line['file bytes'] = f'{file_bytes:,}' if file_bytes else '-'
    line['moves s'], line['other steps'] = _show(price.moving, '.2f'), _show(price.more, '+.0%')
    line['seeds'] = _seeds(by_level.values())
    lines.append(line)
  sparsities = {m: ' and '.join(f'{s:g}' for s in judged[m]) or '-' for m in judged}
  note = (
    'acc: accuracy in points of 100, mean of the tasks and seeds; loss: held-out, after '
    f'pre-training; rank: mean rank by loss at {sparsities["loss"]}; by accuracy: at '
    f'{sparsities["score"]}; kept: weights kept at {last:g}; file bytes: of a file that was '
    f'written of the float32 model at {standing.PRICED:g}; moves s: seconds that all mask updates '
    'of a run take; other steps: how much longer they are than dense ones. Seconds are medians; '
    'steps of a method and dense steps are timed in turn.'
  )
  return tabular.records('The league', lines, note)


def differences(results: dict) -> tabular.Table:
  """Tabulate accuracy and loss minus those of gradual magnitude, with intervals over seeds."""
  levels = standing.levels(results)
  lines = []
  for name in dict.fromkeys(name for name, _ in results):
    if name in (standing.DENSE, BASELINE):
      continue
    line = {'method': name}
    for measure, column, scale, form in (
      ('score', 'acc', 100, '+.1f'),
      ('loss', 'loss', 1, '+.3f'),
    ):
      for s in levels:
        diffs = standing.differences(results, name, s, BASELINE, measure)
        line[f'{column} {s:g}'] = verdicts.shown(diffs, form, scale) if diffs else '-'
    lines.append(line)
  return tabular.records(f'Minus {BASELINE}, same seed, 95 % intervals of the mean', lines)


def figures(rows: list[dict]) -> dict[str, bytes]:
  """Draw {'league': PNG, 'curves': PNG}."""
  results = standing.results(rows)
  return {'league': _bars(results), 'curves': _curves(results)}


def _judged(results, measure):
  """The judged sparsities that the ledger has, or its highest."""
  levels = standing.levels(results)
  return [s for s in JUDGED_AT[measure] if s in levels] or levels[-1:]


def _bars(results):
  others = {name for name, _ in results} - {standing.DENSE, BASELINE}
  panels = [
    (measure, s)
    for measure in ('loss', 'score')
    for s in _judged(results, measure)
    if measure == 'loss'
    or any(standing.differences(results, name, s, BASELINE, measure) for name in others)
  ]
  ranks = standing.ranks(results, _judged(results, 'loss'), 'loss')
  names = sorted((name for name in ranks if name != BASELINE), key=lambda name: -ranks[name])
  columns = max(len(panels), 1)
  width, height = 4.2 * columns + 2, 1.6 + 0.3 * max(len(names), 4)
  with drawing.canvas(width, height, columns) as (figure, all_axes):
    if not panels:
      drawing.below(figure, *all_axes)
      return drawing.png(figure)
    for i, (axes, (measure, s)) in enumerate(zip(all_axes, panels, strict=True)):
      _bar_panel(axes, results, names, measure, s)
      axes.set_yticks(range(len(names)), names if i == 0 else [''] * len(names))
    return drawing.png(figure)


def _bar_panel(axes, results, names, measure, sparsity):
  """One panel: the lead of each method over gradual magnitude; to the right is better."""
  scale = 100 if measure == 'score' else -1
  leads = [0]
  for i, name in enumerate(names):
    diffs = standing.differences(results, name, sparsity, BASELINE, measure)
    if not diffs:
      continue
    diffs = [scale * diff for diff in diffs]
    leads += diffs
    e = statistics.cautious(diffs)
    axes.plot(diffs, [i] * len(diffs), '.', color='#9aa5b1', markersize=7, zorder=2)
    axes.errorbar(
      [e.mean],
      [i],
      xerr=[[e.mean - e.low], [e.high - e.mean]] if e.n > 1 else None,
      fmt='D',
      color='#d1495b' if e.mean < 0 else '#2a9d8f',
      capsize=3,
      elinewidth=1.2,
      markersize=6,
      zorder=3,
    )
  axes.axvline(0, color='#333333', linewidth=1)
  # Limits follow the seeds: an interval of two seeds would fill any page.
  margin = 0.1 * (max(leads) - min(leads)) or 1
  axes.set_xlim(min(leads) - margin, max(leads) + margin)
  axes.set_xlabel(
    f'points of accuracy minus {BASELINE}'
    if measure == 'score'
    else f'loss of {BASELINE} minus loss, nats'
  )
  axes.set_title(f'sparsity {sparsity:g}')


def _curves(results):
  names = [n for n in dict.fromkeys(name for name, _ in results) if n != standing.DENSE]
  labels = {'loss': 'held-out pre-training loss', 'score': 'accuracy'}
  # Dense models alone are no curve, but their level is all that a run's beginning has.
  drawn = [result for (name, _), result in results.items() if name in names] or results.values()
  measures = [m for m in labels if any(getattr(result, m) for result in drawn)] or ['loss']
  width, height = max(5.5 * len(measures), 8), 5.2 + 0.16 * len(names)
  with drawing.canvas(width, height, len(measures)) as (figure, panels):
    for axes, measure in zip(panels, measures, strict=True):
      if dense := results.get((standing.DENSE, 0.0)):
        level = statistics.mean(getattr(dense, measure).values())
        axes.axhline(level, color='#888888', linestyle='--', label='dense')
      for i, name in enumerate(names):
        points = sorted(
          (s, statistics.mean(getattr(result, measure).values()))
          for (method, s), result in results.items()
          if method == name and getattr(result, measure)
        )
        x, y = zip(*points, strict=True) if points else ((), ())
        axes.plot(
          x,
          y,
          color=f'C{i % 10}',
          marker='o^sDv'[i // 10 % 5],
          linewidth=3 if name == BASELINE else 1.3,
          markersize=5,
          label=name,
        )
      axes.set_xlabel('sparsity of the encoder kernels')
      axes.set_ylabel(labels[measure])
    drawing.below(figure, *panels, columns=4)
    return drawing.png(figure)


def _show(value, form):
  return '-' if value is None or value != value else f'{value:{form}}'


def _seeds(results):
  """'2', or '1-3' where sparsities differ."""
  counts = sorted({len(result.score) for result in results})
  return '-'.join(str(c) for c in dict.fromkeys((counts[0], counts[-1]))) if counts else '0'
