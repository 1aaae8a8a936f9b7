"""Judge the claims of Hassibi & Stork 1993 on the ledger."""

from experiments.hassibi1993 import paper
from prunejax.report import statistics, verdicts

PROBLEMS = tuple(paper.TABLE)
POINT = 0.0051  # Two networks within half a per cent of accuracy count as equal.
# Dense networks whose training errors differ by less than this share are in one minimum. They are
# one network up to the order and the signs of its units, and so one unit of replication.
SAME = 0.02
# A method chooses right every time where it fails on no seed and the exact 95 % interval of its
# share of seeds lies above ALWAYS. No number of seeds shows a share of 1; SEEDS without a failure
# are the fewest that clear ALWAYS.
ALWAYS, SEEDS = 2 / 3, 10


def by_network(rows: list[dict], problem: str, method: str) -> dict:
  """Pick the cells of a problem and method: {seed: metrics}, for XOR {(decay, seed): metrics}."""
  return {
    (row['decay'], row['seed']) if problem == 'xor' else row['seed']: row['metrics']
    for row in rows
    if row['problem'] == problem and row['method'] == method
  }


def values(rows: list[dict], problem: str, method: str, name: str) -> list:
  """List one metric of the cells of a problem and method."""
  return [metrics[name] for metrics in by_network(rows, problem, method).values()]


def minima(cells: dict) -> list[list]:
  """Group the seeds of networks by the minimum that their training ended in.

  Args:
    cells: {seed: metrics}.
  """
  groups, last = [], None
  for seed, metrics in sorted(cells.items(), key=lambda item: item[1]['error_dense']):
    error = metrics['error_dense']
    if last is None or error > last * (1 + SAME):
      groups.append([])
    groups[-1].append(seed)
    last = error
  return groups


def learned(cells: dict, problem: str) -> dict:
  """The cells whose dense network has the training accuracy of the paper's, {seed: metrics}."""
  least = paper.TABLE[problem]['train'] - POINT
  return {seed: metrics for seed, metrics in cells.items() if metrics['train_dense'] >= least}


def claims(rows: list[dict]) -> list[verdicts.Verdict]:
  """Judge every claim."""
  return [
    *(_table(rows, problem) for problem in PROBLEMS),
    _removes_more(rows),
    _xor(rows),
  ]


def _table(rows, problem):
  """OBS keeps the dense network's accuracies with no more weights than in the paper.

  The paper's algorithm retrains when no more weights can go. OBS with retraining after each weight
  and OBS without it are both judged; either counts. The unit is a minimum: networks in one are
  averaged, and networks that have not learned the problem are left out.
  """
  published, evidence, comparisons = paper.TABLE[problem], [], {}
  for method in ('obs', 'obs, retrained'):
    by_seed = learned(by_network(rows, problem, method), problem)
    cells, groups = by_seed.values(), minima(by_seed)
    mean = lambda value, by_seed=by_seed, groups=groups: [
      statistics.mean([value(by_seed[seed]) for seed in seeds]) for seeds in groups
    ]
    left = [metrics['left'] for metrics in cells]
    fewest = mean(lambda m: m['left'])
    change = mean(lambda m: m['test_left'] - m['test_dense'])
    comparisons[method] = [
      verdicts.Comparison(
        f'weights left by {method}',
        fewest,
        published['left'] + 0.5,
        above=False,
        form='.1f',
        unit='minimum',
      ),
      verdicts.Comparison(f'of test accuracy by {method}', change, -POINT, unit='minimum'),
    ]
    if left:
      train, test, dense = (
        verdicts.shown([metrics[name] for metrics in cells])
        for name in ('train_left', 'test_left', 'test_dense')
      )
      evidence.append(
        f'{method}: {verdicts.shown(left, ".1f")} left, {min(left)} to {max(left)}; train '
        f'{train}, test {test} against {dense} dense; {len(left)} seeds in {_counted(groups)}'
      )
  words = {method: verdicts.all_hold(both) for method, both in comparisons.items()}
  order = (verdicts.REPRODUCED, verdicts.UNDECIDED, verdicts.NOT_REPRODUCED)
  best = min(words, key=lambda method: order.index(words[method]))
  return verdicts.Verdict(
    f'{problem}_table',
    f'OBS takes {problem} from {published["weights"]} weights to {published["left"]} at the '
    f'accuracy of the dense net, {100 * published["train"]:g} % on train and '
    f'{100 * published["test"]:g} % on test',
    words[best],
    '. '.join(evidence),
    (problem,),
    verdicts.decided_by(comparisons[best]),
  )


def _removes_more(rows):
  """At equal training accuracy OBS leaves fewer weights than OBD and magnitude, by minimum."""
  fewer, evidence = [], []
  for problem in PROBLEMS:
    obs = learned(by_network(rows, problem, 'obs'), problem)
    groups = minima(obs)
    for method in ('obd', 'magnitude'):
      other = by_network(rows, problem, method)
      more = [
        statistics.mean([other[s]['left'] - obs[s]['left'] for s in seeds if s in other])
        for seeds in groups
        if set(seeds) & set(other)
      ]
      what = f'weights more than OBS, {method} on {problem}'
      fewer.append(verdicts.Comparison(what, more, form='+.1f', unit='minimum'))
      shown = verdicts.shown(more, '+.1f') if more else '-'
      evidence.append(f'{problem} {method} {shown} ({_counted(groups)})')
  return verdicts.Verdict(
    'removes_more',
    'at the same training accuracy OBS removes more weights than OBD and magnitude, without '
    'retraining',
    verdicts.all_hold(fewer),
    'weights left beyond those of OBS: ' + '; '.join(evidence),
    PROBLEMS,
    verdicts.decided_by(fewer),
  )


def _counted(groups):
  """'1 minimum', '3 minima'."""
  return f'{len(groups)} {"minimum" if len(groups) == 1 else "minima"}'


def right_by_seed(rows: list[dict], method: str) -> dict:
  """Say of each seed of XOR whether a method removes a right weight from all of its networks.

  The networks of a seed start from one initialisation, so they are one unit of replication. Seeds
  that lack a weight decay of the ledger are left out.

  Args:
    rows: of the ledger.
    method: 'obs', 'obd' or 'magnitude'.

  Returns:
    {seed: bool}.
  """
  decays = {row['decay'] for row in rows if row['problem'] == 'xor'}
  by_seed = {}
  for (decay, seed), metrics in by_network(rows, 'xor', method).items():
    by_seed.setdefault(seed, {})[decay] = bool(metrics['right'])
  return {seed: all(r.values()) for seed, r in by_seed.items() if set(r) == decays}


def _always(right):
  """+1 where a method chose right on every seed and the interval lies above ALWAYS, -1 below it.

  Fewer than SEEDS seeds say nothing.
  """
  share = statistics.proportion(sum(right.values()), len(right))
  if share.n < SEEDS:
    return 0
  return int(share.mean == 1 and share.low > ALWAYS) - int(share.high < ALWAYS)


def _xor(rows):
  """Only OBS always removes a weight that the XOR network can spare; a seed is the unit."""
  right = {method: right_by_seed(rows, method) for method in ('obs', 'obd', 'magnitude')}
  always = {method: _always(by_seed) for method, by_seed in right.items()}
  sides = {method: side if method == 'obs' else -side for method, side in always.items()}
  # The method that supports the claim least decides; among equals the one that OBS is least unlike.
  share = lambda method: statistics.proportion(sum(right[method].values()), len(right[method]))
  away = lambda method: share(method).mean if method == 'obs' else 1 - share(method).mean
  known = [method for method in right if right[method]]
  number = ''
  if known:
    decisive = min(known, key=lambda method: (sides[method], away(method)))
    chance = share(decisive)
    interval = f'{chance.mean:.3f} [{chance.low:.3f}, {chance.high:.3f}]'
    number = f'{interval} of {chance.n} seeds by {decisive}, against {ALWAYS:.3g}'
  nets = {method: values(rows, 'xor', method, 'right') for method in right}
  counts = '; '.join(
    f'{method} on {sum(by_seed.values())} of {len(by_seed)} seeds, {sum(nets[method])} of '
    f'{len(nets[method])} nets'
    for method, by_seed in right.items()
  )
  solved = '; '.join(
    f'{method} {sum(a == 1 for a in values(rows, "xor", method, "accuracy_after"))}'
    for method in right
  )
  return verdicts.Verdict(
    'xor',
    'of OBS, OBD and magnitude only OBS removes a right weight from a trained XOR net every time '
    f'(on every seed, {SEEDS} at least, and by the exact interval on more than two thirds)',
    verdicts.all_of(sides.values()),
    f'right weights: {counts}; all four answers still right with no retraining: {solved}'
    if any(nets.values())
    else 'no runs',
    ('xor',),
    number,
  )
