"""The paper's claims over ledger rows, and its table beside ours."""

from experiments.hassibi1993 import paper
from prunejax.report import statistics, tables, verdicts

PROBLEMS = tuple(paper.TABLE)
POINT = 0.0051  # half a per cent: two nets are as accurate as each other


def pick(rows, problem, method):
  """Metrics by seed; a net of XOR is also set apart by its weight decay."""
  found = [r for r in rows if r['problem'] == problem and r['method'] == method]
  return {(r['decay'], r['seed']) if problem == 'xor' else r['seed']: r['metrics'] for r in found}


def values(rows, problem, method, name):
  return [m[name] for m in pick(rows, problem, method).values()]


def claims(rows):
  return [*(table_holds(rows, p) for p in PROBLEMS), fewer_than_others(rows), xor_right(rows)]


def table_holds(rows, problem):
  """OBS keeps the dense net's accuracy, on train and on test, with no more weights than in the paper.

  The paper's algorithm retrains where no more weights go; with retraining after each weight and without, either counts.
  """
  theirs, found, said = paper.TABLE[problem], [], []
  text = (
    f'OBS takes {problem} from {theirs["weights"]} weights to {theirs["left"]} at the accuracy of the dense net, '
    f'{100 * theirs["train"]:g} % on train and {100 * theirs["test"]:g} % on test'
  )
  for method in ('obs', 'obs, retrained'):
    ours = pick(rows, problem, method).values()
    left = [m['left'] for m in ours]
    few = verdicts.side([theirs['left'] + 0.5 - n for n in left])
    same = verdicts.side([m['test_left'] - m['test_dense'] + POINT for m in ours])
    found.append(verdicts.all_of([few, same]))
    if left:
      train, test, dense = (
        [m[name] for m in ours] for name in ('train_left', 'test_left', 'test_dense')
      )
      said.append(
        f'{method}: {verdicts.shown(left, ".1f")} left, {min(left)} to {max(left)}; train '
        f'{verdicts.shown(train)}, test {verdicts.shown(test)} against {verdicts.shown(dense)} dense; '
        f'{len(left)} seeds'
      )
  word = verdicts.word(
    verdicts.REPRODUCED in found, all(v == verdicts.NOT_REPRODUCED for v in found)
  )
  return verdicts.Verdict(f'{problem}_table', text, word, '. '.join(said), (problem,))


def fewer_than_others(rows):
  """At the dense net's training accuracy OBS leaves fewer weights than OBD and magnitude, none of them retrained."""
  sides, said = [], []
  for problem in PROBLEMS:
    ours = pick(rows, problem, 'obs')
    for other in ('obd', 'magnitude'):
      theirs = pick(rows, problem, other)
      more = [theirs[s]['left'] - ours[s]['left'] for s in sorted(ours.keys() & theirs.keys())]
      sides.append(verdicts.side(more))
      said.append(f'{problem} {other} {verdicts.shown(more, "+.1f")}')
  return verdicts.Verdict(
    'removes_more',
    'at the same training accuracy OBS removes more weights than OBD and magnitude, without retraining',
    verdicts.all_of(sides),
    'weights left beyond those of OBS: ' + '; '.join(said),
    PROBLEMS,
  )


def xor_right(rows):
  """Only OBS removes a weight from the XOR net that can be done without, every time."""
  share = {m: values(rows, 'xor', m, 'right') for m in ('obs', 'obd', 'magnitude')}
  enough = min(map(len, share.values())) >= 2
  always = enough and all(share['obs'])
  others = {m: enough and all(share[m]) for m in ('obd', 'magnitude')}
  said = '; '.join(f'{m} {sum(v)} of {len(v)}' for m, v in share.items())
  return verdicts.Verdict(
    'xor',
    'of OBS, OBD and magnitude only OBS removes a right weight from a trained XOR net every time',
    verdicts.word(
      always and not any(others.values()), enough and (not always or any(others.values()))
    ),
    f'right weights: {said}; all four answers still right with no retraining: '
    + '; '.join(
      f'{m} {sum(a == 1 for a in values(rows, "xor", m, "accuracy_after"))}' for m in share
    ),
    ('xor',),
  )


def shown(rows):
  """The paper's table beside ours, by method."""
  lines = []
  for problem in PROBLEMS:
    theirs = paper.TABLE[problem]
    lines.append(
      {
        'problem': problem,
        'method': 'OBS, the paper',
        'seeds': '',
        'train': f'{theirs["train"]:.3f}',
        'test': f'{theirs["test"]:.3f}',
        'weights': theirs['weights'],
        'left': str(theirs['left']),
      }
    )
    for method in dict.fromkeys(r['method'] for r in rows if r['problem'] == problem):
      of = lambda name, p=problem, m=method: values(rows, p, m, name)
      lines.append(
        {
          'problem': problem,
          'method': method,
          'seeds': str(len(of('left'))),
          'train': span(of('train_left')),
          'test': span(of('test_left')),
          'weights': of('weights')[0],
          'left': span(of('left'), '.1f'),
          'fewest': min(of('left')),
          'most': max(of('left')),
          'removed': f'{1 - statistics.mean(of("left")) / of("weights")[0]:.0%}',
          'dense train': span(of('train_dense')),
          'dense test': span(of('test_dense')),
        }
      )
  table = tables.records(
    'Weights left where accuracy on the training set is still that of the dense net',
    lines,
    note_of(rows),
  )
  xor = [
    {
      'method': m,
      'nets': len(values(rows, 'xor', m, 'right')),
      'right weight': sum(values(rows, 'xor', m, 'right')),
      'the best weight': sum(values(rows, 'xor', m, 'best')),
      'all four answers right, not retrained': sum(
        a == 1 for a in values(rows, 'xor', m, 'accuracy_after')
      ),
      'weights that are right': span(values(rows, 'xor', m, 'spare'), '.1f'),
      'error after': span(values(rows, 'xor', m, 'error_after'), '.4f'),
    }
    for m in ('obs', 'obd', 'magnitude')
  ]
  return [
    table,
    tables.records(
      'XOR: the first of nine weights to go',
      xor,
      'Right: after it went and the rest was trained on, XOR is solved.',
    ),
  ]


def note_of(rows):
  return 'Training sets: ' + ', '.join(
    dict.fromkeys(r['source'] for r in rows if r['problem'] != 'xor')
  )


def span(numbers, form='.3f'):
  return verdicts.shown(numbers, form)
