r"""The methods of the field as products of the core: each only what it changes of one run.

  python -m prunejax train --config=configs/methods.py:rigl --workdir=runs/rigl
  python -m prunejax train --config=configs/methods.py:lottery,steps=1000,sparsity=0.9 \
      --workdir=runs/lottery

`sweep --config=configs/methods.py` runs all of them, by these defaults whatever the argument says.
These fine-tune the packaged model (configs/finetune.py:nano), by default for 400 steps to a
sparsity of 0.8; a cut-off decides the sparsity of `han` and `soft_movement`. Change the steps by
the argument: with `--config.steps` the schedules stay those of 400. `methods(sparsity, steps,
rate)` is the table for any run. Every number in it follows from those three, in the papers'
proportions if known.
"""

import statistics

from configs import finetune
from prunejax.train import specs

SPARSITY, STEPS = 0.8, 400
GLOBAL = {'allocation': 'global_threshold()'}
# Weight classes in the sense of See, Luong & Manning: embeddings, attention, the rest.
CLASSES = (r'embeddings/.*', r'.*attention/.*', r'.*')
# What has inputs to look at: not the embeddings, which are looked up.
DENSE_LAYERS = (
  r'encoder/layer_\d+/(attention/(query|key|value|output)|ffn/(intermediate|output))/kernel'
)
EPS, DEVIATION = 0.01, 0.1  # of the reweighting; of the packaged model's kernels
LATENT = {'view': 'straight_through', 'prune.weights.zero_pruned': False}


def methods(sparsity=SPARSITY, steps=STEPS, rate=1e-3, stop=None):
  """Returns {name: {dotted config key: value}} for runs of `steps` steps.

  Args:
    sparsity: the final sparsity.
    steps: of the run; at least 40, so that every phase has a few.
    rate: the peak learning rate, which falls to 0 at the end. Only `rpp` depends on it.
    stop: the last step at which any method moves its masks, at least 20: halfway for a fair
      comparison. None for each method's own, which its paper gives.

  Raises:
    ValueError: `steps` is below 40, or `stop` below 20 or above `steps`.
  """
  if steps < 40:
    raise ValueError(f'methods: steps={steps}; at least 40 are needed')
  if stop is not None and not 20 <= stop <= steps:
    raise ValueError(f'methods: stop={stop}; a step from 20 to {steps} is needed')
  s, end, often = sparsity, min(stop or steps, steps // 2), max(steps // 40, 1)
  ramp, moves = f'cubic({s}, end={end})', f'every({often}, until={end})'
  third, always = stop or 3 * steps // 4, f'every(1, until={stop})' if stop else 'every(1)'
  phase, cycles, rounds, stair = steps // 10, steps // 10, steps // 5, 8 * steps // 100
  if stop:  # phases of equal length, the last of which ends there
    phase, cycles, rounds, stair = stop // 5, stop // 7, stop // 4, stop // 9
  # Adam moves a score by one rate a step at most; in fewer steps it must still reach the cut-off.
  score_rate = '2e-2' if stop is None else f'{2e-2 * steps / stop:g}'
  return {
    'dense': {},
    'magnitude': _group(
      criterion='magnitude()', schedule=ramp, when=moves
    ),  # Zhu & Gupta: frozen at the target
    'global_magnitude': _group(criterion='magnitude()', schedule=ramp, when=moves, **GLOBAL),
    'random': _group(criterion='random()', schedule=ramp, when=moves),
    'taylor': _group(criterion='taylor()', schedule=ramp, when=moves, **GLOBAL),
    # See et al.: one cut after training, then retraining.
    'class_blind': _group(
      criterion='magnitude()', schedule=f'one_shot({s}, at={end})', when=_at(end), **GLOBAL
    ),
    'class_uniform': _group(
      criterion='magnitude()',
      schedule=f'one_shot({s}, at={end})',
      when=_at(end),
      allocation=f'class_uniform({CLASSES})',
    ),
    'class_distribution': _group(
      criterion='magnitude()',
      schedule=f'one_shot({s}, at={end})',
      when=_at(end),
      allocation=f'class_distribution({CLASSES})',
    ),
    'snip': _cut(s, criterion='snip()', **GLOBAL),
    # Second order, and what one batch of inputs says: the first batch, and all steps to recover in.
    'obd': _cut(s, criterion="obd('fisher')"),
    'block_fisher': _cut(s, criterion='block_fisher(block=32, gradients=32, damp=1e-5)'),
    'wanda': _cut(s, criterion='wanda()', allocation='per_output()', where=DENSE_LAYERS),
    'sparsegpt': _cut(s, criterion='sparsegpt()', where=DENSE_LAYERS),
    'static': _group(
      criterion='random()', schedule=f'constant({s})', when=_at(0), allocation='erk()'
    ),
    'set': _group(
      criterion=f"sparse_evolution(0.3, end={third}, first='magnitude')",
      schedule=f'constant({s})',
      when=f'every({often}, until={third})',
      allocation='erk()',
    )
    | {'optimizer.fresh_moments': True},
    'rigl': _group(
      criterion=f"rigl(0.3, end={third}, first='magnitude')",
      schedule=f'constant({s})',
      when=f'every({often}, until={third})',
      allocation='erk()',
    )
    | {'optimizer.fresh_moments': True},
    'acdc': _group(
      criterion='magnitude()',
      schedule=f'cycle({s}, steps={cycles}, begin={cycles}, end={7 * cycles})',
      when=f'every({cycles}, begin={cycles}, until={7 * cycles})',
      **GLOBAL,
    )
    | {'optimizer.fresh_moments': True},
    'movement': _group(criterion='movement(learning_rate=1e-2)', schedule=ramp, when=always)
    | LATENT,
    'global_movement': _group(
      criterion='movement(learning_rate=1e-2)', schedule=ramp, when=always, **GLOBAL
    )
    | LATENT,
    # The schedule is of the cut-off; the penalty decides how sparse that is.
    'soft_movement': _group(
      criterion=f'soft_movement(1e-3, learning_rate={score_rate})',
      schedule=f'cubic(0.3, end={end})',
      when=always,
      allocation='above(1.0, relative=True)',
    )
    | LATENT,
    'platon': _group(criterion='platon()', schedule=ramp, when=moves, **GLOBAL),
    'lottery': _group(
      criterion='magnitude()',
      schedule=f'iterative({s}, rounds=4, steps={rounds}, begin={rounds})',
      when=f'every({rounds}, begin={rounds}, until={4 * rounds})',
      **GLOBAL,
    )
    | {'optimizer.rewind': f'every({rounds}, begin={rounds}, until={4 * rounds})'},
    # Han et al.: rounds in which the cut-off rises to 0.9 deviations of each layer; l2, their best.
    'han': _group(
      criterion='deviations()',
      schedule=f'linear(0.9, begin={phase}, end={5 * phase}, initial=0.3)',
      when=f'every({phase}, begin={phase}, until={5 * phase})',
      allocation='above(1.0, relative=True)',
    )
    | {'optimizer.l2': 1e-4},
    'l1': _rounds(s, phase) | {'optimizer.l1': 1e-5},
    'l2': _rounds(s, phase) | {'optimizer.l2': 1e-4},
    'iterative': _rounds(s, phase),
    # Cheong & Daniel: half at once, nine equal jumps to the end.
    'staircase': _group(
      criterion='magnitude()',
      schedule=f'staircase({min(0.5, s)}, {s}, steps={stair}, jumps=9)',
      when=f'every({stair}, until={9 * stair})',
    ),
    # Guo et al.: what the penalty has made small is cut, zeros first, to the exact sparsity.
    'rpp': _group(criterion='magnitude()', schedule=f'one_shot({s}, at={end})', when=_at(end))
    | {
      'prox.penalty': f'reweighted({_strength(s, steps, rate):.3g}, every={often}, eps={EPS},'
      f' end={end})'
    },
    # Not pruning, its rival: kernels of as many numbers as the pruned ones have non-zeros.
    'low_rank': {'prune.weights.schedule': '', 'low_rank.schedule': ramp, 'low_rank.when': moves},
  }


def _group(**changes):
  return {f'prune.weights.{key}': value for key, value in changes.items()}


def _cut(sparsity, **changes):
  """One cut before the first step."""
  return _group(schedule=f'one_shot({sparsity}, at=0)', when=_at(0), **changes)


def _at(step):
  """A predicate of one step alone."""
  return f'every(1, begin={step}, until={step})'


def _strength(sparsity, steps, rate):
  """The strength at which reweighting alone zeroes this share of normal weights by halfway.

  |w| falls by strength x rate / (|w| + eps) a step. Let q be the size that is to reach zero. Then
  q^2 / 2 + eps q = strength x (the sum of the rates until halfway, 3/8 of rate x steps).
  """
  size = DEVIATION * statistics.NormalDist().inv_cdf((1 + sparsity) / 2)
  return (size**2 / 2 + EPS * size) / (0.375 * rate * steps)


def _rounds(sparsity, phase):
  """Prune and retrain, five times, the same share of what is left each time."""
  return _group(
    criterion='magnitude()',
    schedule=f'iterative({sparsity}, rounds=5, steps={phase}, begin={phase})',
    when=f'every({phase}, begin={phase}, until={5 * phase})',
    **GLOBAL,
  )


def get_config(arg='magnitude'):
  """Returns the config of 'NAME', 'NAME,steps=1000', 'NAME,sparsity=0.9', or both."""
  c = finetune.get_config('nano')
  name, *numbers = arg.split(',')
  asked = {'steps': c.steps, 'sparsity': SPARSITY}
  for number in numbers:
    key, _, value = number.partition('=')
    try:
      asked[key] = {'steps': int, 'sparsity': float}[key](value)
    except (KeyError, ValueError):
      raise ValueError(
        f'configs/methods.py:{arg}: {number!r}: expected steps=NUMBER or sparsity=NUMBER'
      ) from None
  if not 0 <= asked['sparsity'] < 1:
    raise ValueError(f'configs/methods.py:{arg}: sparsity={asked["sparsity"]} is outside [0, 1)')
  c.steps = asked['steps']
  table = methods(asked['sparsity'], c.steps, c.optimizer.learning_rate)
  name = name or 'magnitude'
  if name not in table:
    raise ValueError(
      f'configs/methods.py:{name}{specs.suggest(name, table)}: expected one of {", ".join(table)}'
    )
  for key, value in table[name].items():
    *path, last = key.split('.')
    group = c
    for part in path:
      group = group[part]
    group[last] = value
  return c


def sweep():
  # The argument of the config sets the keys of one method. So each cell sets the keys of all.
  table, plain = methods(), finetune.get_config('nano')
  keys = dict.fromkeys(key for changes in table.values() for key in changes)
  plain = {key: _value(plain, key) for key in keys}
  for changes in table.values():
    yield {**plain, **changes, 'steps': STEPS}


def _value(config, key):
  for part in key.split('.'):
    config = config[part]
  return config
