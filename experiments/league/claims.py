"""What a reader asks of the league, judged on the ledger; its tables and figures."""

from experiments.league import arms, standing
from prunejax.report import drawing, statistics, verdicts
from prunejax.report import tables as tabular

BEST = arms.BASELINE
# Where a measure is judged: pruned by 0.8 and more the packaged model is near chance in its tasks after so few steps
# (experiments/gordon2020), so that accuracy tells methods apart at 0.5 only; the loss does at all sparsities.
SORTED_BY = {'score': (0.5,), 'loss': (0.8, 0.9)}
MARGIN = {
  'score': 0.01,
  'loss': 0.02,
}  # a lead that a reader would call one: a point of accuracy, 0.02 of loss
WORDS = {'score': 'accuracy', 'loss': 'held-out loss'}
SECOND = ('obd', 'block_fisher', 'wanda', 'sparsegpt')  # one cut before the first step, as one_shot
DYNAMIC = ('rigl', 'set')


def check(rows):
  """One `Verdict` a question and measure; a question about methods that the ledger lacks is not asked."""
  found = standing.places(rows)
  known = list(dict.fromkeys(name for name, _ in found if name != standing.DENSE))
  out = []
  for what in ('score', 'loss'):
    out.append(_nothing_beats(found, known, what))
    duels = [
      ('gradual_beats_one_cut', 'Gradual magnitude beats one cut halfway', BEST, 'class_uniform'),
      (
        'gradual_beats_a_cut_at_the_start',
        'Gradual magnitude beats one cut before the first step',
        BEST,
        'one_shot',
      ),
      ('magnitude_beats_chance', 'Gradual magnitude beats weights drawn at random', BEST, 'random'),
      (
        'global_beats_uniform',
        'One threshold for all layers beats one a layer',
        'global_magnitude',
        BEST,
      ),
      ('movement_beats_magnitude', 'Movement beats magnitude at high sparsity', 'movement', BEST),
      *(
        (
          f'second_order_beats_magnitude_{n}',
          f'One cut by {n} beats one cut by magnitude',
          n,
          'one_shot',
        )
        for n in SECOND
      ),
      *(
        (f'{n}_loses', f'{n} from pre-trained weights loses to gradual magnitude', BEST, n)
        for n in DYNAMIC
      ),
    ]
    out += [_duel(found, *duel, what) for duel in duels if {duel[2], duel[3]} <= set(known)]
  return out


def _nothing_beats(found, known, what):
  """GMP*: no method is clearly better; intervals are widened for how many are asked."""
  at = SORTED_BY[what][-1]
  others = [n for n in known if n != BEST and standing.behind(found, n, at, BEST, what)]
  sign = 1 if what == 'score' else -1
  lead = {
    n: statistics.cautious(
      [sign * d for d in standing.behind(found, n, at, BEST, what)],
      level=1 - 0.05 / max(len(others), 1),
    )
    for n in others
  }
  winners = [n for n, e in lead.items() if e.low > 0]
  safe = bool(lead) and all(e.high < MARGIN[what] for e in lead.values())
  top = max(lead, key=lambda n: lead[n].mean, default=None)
  text = (
    'no other method'
    if top is None
    else (
      f'{len(others)} methods; the furthest ahead is {top} by {lead[top].mean:+.4f} '
      f'[{lead[top].low:+.4f}, {lead[top].high:+.4f}] of {WORDS[what]}'
      + (f'; clearly ahead: {", ".join(winners)}' if winners else '')
    )
  )
  return verdicts.Verdict(
    f'nothing_beats_gradual_magnitude_{what}',
    f'Gradual magnitude is matched but not beaten at {at:g} (GMP*, Kurtic & Alistarh 2022), by {WORDS[what]}',
    verdicts.word(safe, bool(winners)),
    text,
    ('league',),
  )


def _duel(found, name, claim, one, other, what):
  """`one` is better than `other` at each sparsity that the measure is judged at and both ran."""
  sign = 1 if what == 'score' else -1
  diffs = {
    s: [sign * d for d in standing.behind(found, one, s, other, what)] for s in SORTED_BY[what]
  }
  diffs = {s: d for s, d in diffs.items() if d}
  text = '; '.join(f'at {s:g}: {verdicts.shown(d, "+.4f")}' for s, d in diffs.items())
  word = verdicts.all_of([verdicts.side(d) for d in diffs.values()])
  return verdicts.Verdict(
    f'{name}_{what}', f'{claim}, by {WORDS[what]}', word, text or 'not run', ('league', 'curves')
  )


def tables(rows):
  """The league, sorted by mean rank; the differences to gradual magnitude; losses."""
  found = standing.places(rows)
  return [league(found, standing.prices(rows)), differences(found)]


def league(found, prices={}):  # noqa: B006 (read only)
  """One line a method: ranks, accuracies and losses by sparsity, weights kept, bytes and seconds of pruning."""
  levels = standing.levels(found)
  judged = {what: _judged(found, what) for what in SORTED_BY}
  by_score, by_loss = (standing.ranks(found, judged[what], what) for what in ('score', 'loss'))
  names = sorted(
    {n for n, _ in found},
    key=lambda n: (n != standing.DENSE, by_loss.get(n, 99), by_score.get(n, 99), n),
  )
  at = judged['loss']
  lines = []
  for name in names:
    mine = {s: place for (n, s), place in found.items() if n == name}
    any_place = next(iter(mine.values()))
    show = {
      'method': name,
      'family': any_place.family,
      'rank': _plain(by_loss.get(name), '.1f'),
      'by accuracy': _plain(by_score.get(name), '.1f'),
    }
    for s in levels:
      place = mine.get(0.0 if name == standing.DENSE else s)
      e = statistics.bootstrap(place.score.values() if place else [])
      show[f'acc {s:g}'] = f'{100 * e.mean:.1f}' if e.n else '-'
    for s in levels:
      place = mine.get(0.0 if name == standing.DENSE else s)
      show[f'loss {s:g}'] = (
        f'{statistics.mean(place.loss.values()):.3f}' if place and place.loss else '-'
      )
    last = mine.get(0.0 if name == standing.DENSE else at[-1])
    kept = sorted(set(last.kept.values())) if last else []
    show[f'kept {at[-1]:g}'] = (
      f'{kept[0]:,}' + (f' to {kept[-1]:,}' if len(kept) > 1 else '') if kept else '-'
    )
    price = prices.get(
      arms.BASELINE if name == arms.TAUGHT else name, standing.Price(None, None, None)
    )
    weight = 4 * standing.WHOLE if name == standing.DENSE else price.file_bytes
    show['file bytes'] = f'{weight:,}' if weight else '-'
    show['moves s'], show['other steps'] = _plain(price.moving, '.2f'), _plain(price.more, '+.0%')
    show['seeds'] = _seeds(place for s, place in mine.items())
    lines.append(show)
  over = {what: ' and '.join(f'{s:g}' for s in judged[what]) for what in judged}
  note = (
    'acc: accuracy in points of 100, mean of the tasks and seeds; loss: held-out, after pre-training; rank: mean '
    f'rank by loss at {over["loss"]}; by accuracy: at {over["score"]}; kept: at {at[-1]:g}; file bytes: of a '
    f'file written of the float32 model at {standing.PRICED:g}; moves s: what all moves of the masks of a run '
    'take; other steps: how much longer they are than dense ones; medians of steps taken in turn.'
  )
  return tabular.records('The league', lines, note)


def differences(found):
  """Accuracy minus that of gradual magnitude, seed by seed, with intervals."""
  levels = standing.levels(found)
  names = [n for n in dict.fromkeys(name for name, _ in found) if n not in (standing.DENSE, BEST)]
  lines = []
  for name in names:
    line = {'method': name}
    for what, scale, form in (('score', 100, '+.1f'), ('loss', 1, '+.3f')):
      for s in levels:
        diffs = standing.behind(found, name, s, BEST, what)
        line[f'{"acc" if what == "score" else "loss"} {s:g}'] = (
          verdicts.shown(diffs, form, scale) if diffs else '-'
        )
    lines.append(line)
  return tabular.records(f'Minus {BEST}, same seed, 95 % intervals of the mean', lines)


def figures(rows):
  """{'league', 'curves'}."""
  found = standing.places(rows)
  return {'league': _bars(found), 'curves': _curves(found)}


def _judged(found, what):
  levels = standing.levels(found)
  return [s for s in SORTED_BY[what] if s in levels] or levels[-1:]


def _bars(found):
  known = {n for n, _ in found} - {standing.DENSE, BEST}
  panels = [
    (what, s)
    for what in ('loss', 'score')
    for s in _judged(found, what)
    if what == 'loss' or any(standing.behind(found, n, s, BEST, what) for n in known)
  ]
  ranks = standing.ranks(found, _judged(found, 'loss'), 'loss')
  names = sorted((n for n in ranks if n != BEST), key=lambda n: -ranks[n])
  with drawing.canvas(4.2 * len(panels) + 2, 1.6 + 0.3 * max(len(names), 4), len(panels)) as (
    figure,
    drawn,
  ):
    for i, (axes, (what, s)) in enumerate(zip(drawn, panels, strict=True)):
      _bar(axes, found, names, what, s)
      axes.set_yticks(range(len(names)), names if i == 0 else [''] * len(names))
    return drawing.png(figure)


def _bar(axes, found, names, what, s):
  """One panel: how far each method is from gradual magnitude; to the right is better."""
  scale = 100 if what == 'score' else -1
  shown = [0]
  for i, name in enumerate(names):
    diffs = [scale * d for d in standing.behind(found, name, s, BEST, what)]
    if not diffs:
      continue
    shown += diffs
    e = statistics.cautious(diffs)
    axes.plot(diffs, [i] * len(diffs), '.', color='#9aa5b1', markersize=7, zorder=2)
    reach = [[e.mean - e.low], [e.high - e.mean]] if e.n > 1 else None
    axes.errorbar(
      [e.mean],
      [i],
      xerr=reach,
      fmt='D',
      color='#d1495b' if e.mean < 0 else '#2a9d8f',
      capsize=3,
      elinewidth=1.2,
      markersize=6,
      zorder=3,
    )
  axes.axvline(0, color='#333333', linewidth=1)
  margin = 0.1 * (max(shown) - min(shown)) or 1
  axes.set_xlim(
    min(shown) - margin, max(shown) + margin
  )  # an interval of two seeds would fill any page
  axes.set_xlabel(
    f'points of accuracy minus {BEST}' if what == 'score' else f'loss of {BEST} minus loss, nats'
  )
  axes.set_title(f'sparsity {s:g}')


def _curves(found):
  names = [n for n in dict.fromkeys(name for name, _ in found) if n != standing.DENSE]
  colours = [f'C{i % 10}' for i in range(len(names))]
  labels = {'loss': 'held-out pre-training loss', 'score': 'accuracy'}
  measured = [
    what
    for what in labels
    if any(getattr(place, what) for (n, _), place in found.items() if n in names)
  ]
  with drawing.canvas(max(5.5 * len(measured), 8), 5.2 + 0.16 * len(names), len(measured)) as (
    figure,
    panels,
  ):
    for axes, what in zip(panels, measured, strict=True):
      if dense := found.get((standing.DENSE, 0.0)):
        axes.axhline(
          statistics.mean(getattr(dense, what).values()),
          color='#888888',
          linestyle='--',
          label='dense',
        )
      for i, (name, colour) in enumerate(zip(names, colours, strict=True)):
        points = sorted(
          (s, statistics.mean(getattr(place, what).values()))
          for (n, s), place in found.items()
          if n == name and getattr(place, what)
        )
        at, values = zip(*points, strict=True) if points else ((), ())
        axes.plot(
          at,
          values,
          color=colour,
          marker='o^sDv'[i // 10 % 5],
          linewidth=3 if name == BEST else 1.3,
          markersize=5,
          label=name,
        )
      axes.set_xlabel('sparsity of the encoder kernels')
      axes.set_ylabel(labels[what])
    drawing.below(figure, *panels, columns=4)
    return drawing.png(figure)


def _plain(value, form):
  return '-' if value is None or value != value else f'{value:{form}}'


def _seeds(places):
  counts = sorted({len(place.score) for place in places})
  return '-'.join(str(c) for c in dict.fromkeys((counts[0], counts[-1]))) if counts else '0'
