"""A run in plain values. `resolve` checks a config once; what trains sees the Recipe alone."""

import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prunejax.data import tasks
from prunejax.models import bert, gpt2
from prunejax.pruning import allocations, criteria, kernel_layout, schedules, structures
from prunejax.pruning.links import proximal
from prunejax.train import configs, model_sizes, sharding, specs
from prunejax.train.specs import Spec
from prunejax.train.step import VIEWS

# Arguments of schedules that are sparsities. They are data of a compiled program.
FRACTIONS = ('sparsity', 'initial', 'start', 'final')
IN_THE_LOSS = ('l1_penalty', 'l2_penalty')
GATES = r'encoder/layer_\d+/ffn/gate/kernel'
DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


class Model(NamedTuple):
  """The group `model` of a config; configs/base.py explains each field."""

  kind: str
  hidden_size: int
  num_hidden_layers: int
  num_attention_heads: int
  intermediate_size: int
  max_position_embeddings: int
  dropout: float
  initializer: str
  dtype: str
  num_key_value_heads: int = 0
  attention_dropout: float = -1.0
  attention: str = 'einsum'
  remat: str = 'none'
  scan_layers: bool = False


class Data(NamedTuple):
  """The group `data` of a config; configs/base.py explains each field."""

  corpus: str
  task: str
  root: str
  cache: str
  encoding: str
  vocab: str
  vocab_size: int
  seq_len: int
  predict: float
  max_predictions: int
  pairs: str
  examples: int
  pydoc: str = 'installed'
  identity: str = 'settings'
  buckets: tuple = ()
  memory: int = 0


class Optimizer(NamedTuple):
  """The group `optimizer` of a config; configs/base.py explains the fields that are not here.

  Attributes:
    rewind: makes a function step -> bool, the steps at which weights go back; None for never.
    rounds: the steps after which weights go back.
    horizon: the steps in which the learning rate falls to 0: all, or those of the last round.
  """

  learning_rate: float
  warmup: float
  sawtooth: int
  b1: float
  b2: float
  eps: float
  weight_decay: float
  clip: float
  l1: float
  l2: float
  fresh_moments: bool
  rewind: Spec | None
  rewind_to: int
  rounds: tuple[int, ...] = ()
  horizon: int = 0


class Group(NamedTuple):
  """One pruning link: the leaves that match `where`, and what makes its parts.

  `schedule` is None for a group that prunes nothing.
  """

  name: str
  where: str
  criterion: Spec
  schedule: Spec | None
  when: Spec
  allocation: Spec
  structure: Spec
  zero_pruned: bool
  layout: str | dict = ''


class Penalty(NamedTuple):
  """A penalty on the size of the weights that match `where`.

  `factory(strength, ..., where=where, **fixed)` makes its link.
  """

  name: str
  factory: Any
  strength: float
  fixed: dict
  where: str


class LowRank(NamedTuple):
  """The link that cuts the ranks of the kernels that match `where`."""

  schedule: Spec
  when: Spec
  where: str
  layout: str | dict = ''


class Distill(NamedTuple):
  """The group `distill` of a config; configs/base.py explains each field."""

  # The config of a work directory holds the teacher alone where there is none.
  teacher: str
  temperature: float = 2.0
  weight: float = 0.5


class Mesh(NamedTuple):
  """The group `mesh` of a config; configs/base.py explains each field."""

  data: int
  model: int
  rules: str | tuple
  axes: str = 'auto'


class Population(NamedTuple):
  """The group `population` of a config; configs/base.py explains each field."""

  members: int = 0
  batching: str = 'auto'
  mesh: int = -1
  memory: float = 0.0
  waves: int = 0


class Eval(NamedTuple):
  """The group `eval` of a config; configs/base.py explains each field."""

  every: int
  batches: int
  batch_size: int


class Checkpoint(NamedTuple):
  """The group `checkpoint` of a config; configs/base.py explains each field."""

  every: int
  keep: int


class Log(NamedTuple):
  """The group `log` of a config; configs/base.py explains each field."""

  every: int
  who_pays: bool
  tensorboard: bool


class Recipe(NamedTuple):
  """A run. configs/base.py explains the fields that are not explained here.

  Attributes:
    hold_zeros: regex of the leaves whose zeros stay; '' for none.
    prune: the groups that have a schedule.
    task: what `data.task` names; None for pre-training.
    where: regex of every leaf that may be pruned.
    penalty: of the group `prox`; None for none.
    low_rank: None for none.
    identity: the plain dict that a work directory is claimed by.
    saved: the whole config as JSON, for checkpoints.
  """

  seed: int
  steps: int
  batch_size: int
  accumulate: int
  init: str
  pretrained: bool
  keep_model: bool
  keep_latent: bool
  view: str
  hold_zeros: str
  model: Model
  data: Data
  task: tasks.Task | None
  optimizer: Optimizer
  prune: tuple[Group, ...]
  where: str
  penalty: Penalty | None
  low_rank: LowRank | None
  distill: Distill
  mesh: Mesh
  population: Population
  eval: Eval
  checkpoint: Checkpoint
  log: Log
  identity: dict
  saved: str
  continue_from: str = ''


def _at_least(least):
  return lambda x: x >= least, f'at least {least}'


NON_NEGATIVE = (lambda x: 0 <= x < math.inf, 'a finite number, 0 or more')
SHARE = (lambda x: 0 <= x <= 1, 'a share in [0, 1]')
BELOW_ONE = (lambda x: 0 <= x < 1, 'a number in [0, 1)')
ABOVE_ZERO = (lambda x: 0 < x < math.inf, 'a number above 0 and below infinity')
RANGES = {
  'seed': (lambda x: 0 <= x < 2**63, 'a whole number, at least 0 and less than 2**63'),
  'steps': _at_least(1),
  'batch_size': _at_least(1),
  'accumulate': _at_least(1),
  **{f'model.{key}': _at_least(1) for key in model_sizes.SIZE_KEYS},
  'model.num_key_value_heads': _at_least(0),
  'model.dropout': (BELOW_ONE[0], 'a share in [0, 1)'),
  'model.attention_dropout': (
    lambda x: x == -1 or 0 <= x < 1,
    'a share in [0, 1), or -1 for model.dropout',
  ),
  'data.vocab_size': _at_least(1),
  'data.max_predictions': _at_least(1),
  'data.examples': _at_least(0),
  'data.memory': _at_least(0),
  'optimizer.learning_rate': NON_NEGATIVE,
  'optimizer.warmup': (SHARE[0], 'a share of the steps in [0, 1]'),
  'optimizer.sawtooth': _at_least(0),
  'optimizer.b1': BELOW_ONE,
  'optimizer.b2': BELOW_ONE,
  'optimizer.eps': ABOVE_ZERO,
  'optimizer.weight_decay': NON_NEGATIVE,
  'optimizer.clip': (lambda x: x > 0, 'a number above 0'),
  'optimizer.l1': NON_NEGATIVE,
  'optimizer.l2': NON_NEGATIVE,
  'optimizer.rewind_to': _at_least(0),
  'mesh.model': _at_least(1),
  'population.members': _at_least(0),
  'population.memory': _at_least(0.0),
  'population.waves': _at_least(0),
  'eval.every': _at_least(0),
  'eval.batches': _at_least(1),
  'eval.batch_size': _at_least(1),
  'checkpoint.every': _at_least(0),
  'checkpoint.keep': _at_least(1),
  'log.every': _at_least(0),
}
CHOICES = {
  'view': tuple(VIEWS),
  'model.dtype': tuple(DTYPES),
  'model.kind': model_sizes.KINDS,
  'model.initializer': ('normal', 'fan_in'),
  'model.attention': model_sizes.ATTENTION,
  'model.remat': model_sizes.REMAT,
  'mesh.axes': ('auto', 'explicit'),
  'data.pairs': ('matched', 'first'),
  'data.pydoc': ('installed', 'packaged'),
  'data.identity': ('settings', 'content'),
  'population.batching': ('auto', 'map', 'vmap'),
}


def resolve(config) -> Recipe:
  """Checks a config and returns its run in plain values and factories.

  Args:
    config: a ConfigDict with the keys of configs/base.py.

  Raises:
    ValueError: a value that no run can have; the message names its key and says what is accepted.
  """
  values = configs.flat(config)
  _check_values(values)
  every_group = [_group(name, group) for name, group in config.prune.items()]
  groups = tuple(group for group in every_group if group.schedule)
  for group in groups:
    _check_group(group, config)
  every_leaf = '|'.join(f'(?:{_with_gates(group.where)})' for group in config.prune.values())
  sharding.check_rules(config.mesh.rules)
  parts = {
    name: kind(**config[name])
    for name, kind in (
      ('distill', Distill),
      ('mesh', Mesh),
      ('eval', Eval),
      ('checkpoint', Checkpoint),
      ('log', Log),
    )
  }
  data = data_of(config.data)
  plain = ('seed', 'steps', 'batch_size', 'accumulate', 'init', 'pretrained', 'keep_model')
  recipe = Recipe(
    **{key: config[key] for key in (*plain, 'keep_latent', 'view')},
    **parts,
    data=data,
    task=_task(values['data.task'], data.task),
    hold_zeros=every_leaf if config.hold_zeros else '',
    model=Model(**{'kind': 'bert', **config.model}),
    optimizer=_optimizer(config, groups),
    prune=groups,
    where='|'.join(f'(?:{group.where})' for group in groups) or every_leaf,
    penalty=_penalty(config.prox),
    low_rank=_low_rank(config.low_rank),
    population=Population(**config.get('population', {})),
    identity=configs.identity(config),
    saved=config.to_json_best_effort(),
    continue_from=config.get('continue_from', ''),
  )
  _check_combinations(recipe)
  return recipe


def data_of(group) -> Data:
  """Returns the group `data` of a config, with the names of the text that its run reads.

  Args:
    group: a ConfigDict. Of a config that was written before there were all keys, some may lack.
  """
  data = Data(**{'encoding': 'utf-8', **group})
  corpus, task = configs.text_names(data.corpus, data.task, data.pydoc)
  return data._replace(corpus=corpus, task=task)


def _check_values(values):
  """Raises ValueError for a value of {dotted key: value} that is out of range or no choice."""
  for key, (accepts, words) in RANGES.items():
    if key in values and not accepts(values[key]):
      raise ValueError(f'{key}={values[key]!r}: expected {words}')
  for key, known in CHOICES.items():
    if key in values and values[key] not in known:
      near = specs.suggest(values[key], known)
      raise ValueError(f'{key}={values[key]!r}{near}: expected one of {", ".join(known)}')
  groups, kind = values.get('model.num_key_value_heads', 0), values.get('model.kind', 'bert')
  if groups and kind not in model_sizes.GROUPED:
    raise ValueError(
      f'model.num_key_value_heads={groups}: a {kind} has a key for every query; expected 0, or'
      f' model.kind={", ".join(model_sizes.GROUPED)}'
    )
  if groups and values['model.num_attention_heads'] % groups:
    raise ValueError(
      f'model.num_key_value_heads={groups}: model.num_attention_heads='
      f'{values["model.num_attention_heads"]} does not divide into as many groups'
    )
  if values['distill.teacher']:
    for key, (accepts, words) in (
      ('distill.temperature', ABOVE_ZERO),
      ('distill.weight', SHARE),
    ):
      if not accepts(values[key]):
        raise ValueError(f'{key}={values[key]!r}: expected {words}')
  if buckets := values.get('data.buckets', ()):
    whole = all(type(length) is int and length >= 1 for length in buckets)
    if not whole or sorted(set(buckets)) != list(buckets) or buckets[-1] > values['data.seq_len']:
      raise ValueError(
        f'data.buckets={buckets!r}: expected lengths that rise and end at'
        f' data.seq_len={values["data.seq_len"]} or below, such as (16, 32, 64)'
      )
    if not values['data.task']:
      raise ValueError(
        f'data.buckets={buckets!r}: only batches of a task have lengths of their own; leave it out'
      )
  if values['batch_size'] % values['accumulate']:
    raise ValueError(
      f'accumulate={values["accumulate"]}: batch_size={values["batch_size"]} does not divide into'
      ' as many parts'
    )


def _task(text, name):
  """The task of a name, or None. Raises ValueError naming the key and its text."""
  try:
    return tasks.get(name) if name else None
  except ValueError as error:
    raise ValueError(f'data.task={text!r}: {error}') from None


def _with_gates(where: str) -> str:
  """The default regexes, those of BERT and GPT-2, with the one matrix that only Llama's class has.

  So a config that names no leaves prunes and holds every matrix of a layer. The stored config keeps
  its text, and with it the name of its cell.
  """
  return f'{where}|{GATES}' if where in (bert.PRUNABLE, gpt2.PRUNABLE) else where


def _group(name, group) -> Group:
  """The pruning group `name` of a config. Raises ValueError naming the key."""
  key = f'prune.{name}'
  _check_regex(f'{key}.where', group.where)
  parts = {
    part: _spec(f'{key}.{part}', group[part], module) if group[part] or part != 'schedule' else None
    for part, module in (
      ('criterion', criteria),
      ('schedule', schedules),
      ('when', schedules),
      ('allocation', allocations),
      ('structure', structures),
    )
  }
  layout = _layout(f'{key}.layout', group.layout)
  return Group(
    name, _with_gates(group.where), **parts, zero_pruned=group.zero_pruned, layout=layout
  )


def _check_group(group, config):
  """Raises ValueError for a group that does not go with the rest of its config."""
  key, texts = f'prune.{group.name}', config.prune[group.name]
  if config.view == 'apply' and group.criterion().dense_gradient:
    raise ValueError(
      f'{key}.criterion={texts.criterion!r} needs the gradient of pruned weights, which view=apply'
      ' cuts off: use view=straight_through or, with zero_pruned=True, view=plain'
    )
  end, final, most = group.schedule().end, group.schedule().final, group.structure().cost
  if final is not None and np.float32(final) > np.float32(most):
    raise ValueError(
      f'{key}.schedule={texts.schedule!r} asks for sparsity {final}, but'
      f' {key}.structure={texts.structure!r} can remove at most {most}'
    )
  if end is not None and end >= config.steps:
    raise ValueError(
      f'{key}.schedule={texts.schedule!r} reaches its target at step {end}, but'
      f' steps={config.steps} end at {config.steps - 1}: let it end earlier, or train longer'
    )


def _optimizer(config, groups) -> Optimizer:
  c, plain = config.optimizer, {**config.optimizer}
  for key in ('rewind', 'fresh_moments'):
    if c[key] and not (groups or config.hold_zeros):
      raise ValueError(
        f'optimizer.{key}={c[key]!r}: no group of prune has a schedule, so no mask moves'
      )
  if c.rewind and c.fresh_moments:
    raise ValueError(
      'optimizer.fresh_moments=True: optimizer.rewind sets all moments back anyway; leave one out'
    )
  if not c.rewind:
    return Optimizer(**{**plain, 'rewind': None}, horizon=config.steps)
  rewind = _spec('optimizer.rewind', c.rewind, schedules)
  rounds = _rounds(config, rewind(), groups)
  horizon = config.steps - rounds[-1] - 2 + c.rewind_to
  return Optimizer(**{**plain, 'rewind': rewind}, rounds=rounds, horizon=horizon)


def _rounds(config, rewinds, groups):
  """The steps after which weights go back. Raises ValueError naming the key."""
  c = config.optimizer
  key = f'optimizer.rewind={c.rewind!r}'
  due = np.asarray(jax.vmap(rewinds)(jnp.arange(config.steps)))
  rounds = tuple(int(step) for step in np.flatnonzero(due) if step > c.rewind_to)
  if not rounds:
    raise ValueError(
      f'{key} is due at no step between rewind_to={c.rewind_to} and steps={config.steps}'
    )
  if rounds[-1] + 2 >= config.steps:
    raise ValueError(
      f'{key}: to go back at step {rounds[-1]} takes two; steps={config.steps} leaves none to train'
    )
  for group in groups:
    when = group.when()
    for step in rounds:
      if when(jnp.int32(step + 1)):
        raise ValueError(
          f'{key} and prune.{group.name}.when={config.prune[group.name].when!r}: masks may not move'
          f' at step {step + 1}, at which weights go back; let masks move at the steps of rewind'
        )
  return rounds


def _penalty(prox) -> Penalty | None:
  """The group `prox` of a config. Raises ValueError naming the key."""
  if not prox.penalty:
    return None
  key, text = 'prox.penalty', prox.penalty
  spec = specs.parse(text, proximal, key)
  for name, default in (('rate', 1.0), ('where', '.*')):
    if spec.arguments.get(name, default) != default:
      source = 'optimizer.learning_rate' if name == 'rate' else 'prox.where'
      raise ValueError(f'{key}={text!r}: {name} comes from {source}; leave it out')
  if spec.name == 'shrink':
    raise ValueError(
      f'{key}={text!r}: expected soft_threshold, reweighted, l1_penalty or l2_penalty'
    )
  strength, end = spec.arguments['strength'], spec.arguments['end']
  if isinstance(strength, bool) or not isinstance(strength, int | float):
    raise ValueError(f'{key}={text!r}: strength={strength!r} must be a number')
  _built(spec, key, text)
  _check_regex('prox.where', prox.where)
  if end is not None and (isinstance(end, bool) or not isinstance(end, int)):
    raise ValueError(f'{key}={text!r}: end={end!r} must be a step, or None')
  fixed = {k: v for k, v in spec.arguments.items() if k not in ('strength', 'rate', 'where')}
  return Penalty(spec.name, spec.factory, float(strength), fixed, _with_gates(prox.where))


def _low_rank(group) -> LowRank | None:
  """The group `low_rank` of a config. Raises ValueError naming the key."""
  if not group.schedule:
    return None
  _check_regex('low_rank.where', group.where)
  schedule, when = (
    _spec(f'low_rank.{part}', group[part], schedules) for part in ('schedule', 'when')
  )
  return LowRank(schedule, when, _with_gates(group.where), _layout('low_rank.layout', group.layout))


def _check_combinations(recipe):
  """Raises ValueError for values that do not go together."""
  model = recipe.model
  rate = model.dropout if model.attention_dropout == -1 else model.attention_dropout
  if model.attention == 'dot_product' and rate:
    raise ValueError(
      f"model.attention='dot_product' has no dropout of attention weights, and this run has {rate}:"
      ' set model.attention_dropout=0'
    )
  latent = [group.name for group in recipe.prune if not group.zero_pruned]
  if latent and recipe.view == 'plain':
    raise ValueError(
      f'prune.{latent[0]}.zero_pruned=False needs view=apply or view=straight_through, else nothing'
      ' is pruned'
    )
  if recipe.keep_latent and not latent:
    raise ValueError(
      'keep_latent=True: no group of prune has zero_pruned=False, so no weight lives under a mask'
    )
  if recipe.low_rank and (recipe.prune or recipe.hold_zeros):
    raise ValueError(
      'low_rank.schedule: a kernel cannot be held at a rank and at zeros; set prune.*.schedule to'
      ' ""'
    )


def _layout(key, text) -> str | dict:
  """Words for all leaves, or the table that a text holds. Raises ValueError naming the key."""
  layout = text
  try:
    if len(text) > specs.MOST:
      raise ValueError(f'expected at most {specs.MOST} characters')
    if text.strip().startswith(('{', '(', '[')):
      layout = dict(specs.literal(text))
    kernel_layout.parse(layout)
  except (ValueError, SyntaxError, TypeError) as error:
    raise ValueError(f'{key}={specs.shown(text)}: {error}') from error
  return layout


def _spec(key, text, module) -> Spec:
  """A spec string whose factory takes its arguments. Raises ValueError naming the key."""
  spec = specs.parse(text, module, key)
  _built(spec, key, text)
  return spec


def _built(spec, key, text):
  try:
    return spec()
  except (ValueError, TypeError) as error:
    raise ValueError(f'{key}={text!r}: {error}') from error


def _check_regex(key, text):
  try:
    re.compile(text)
  except re.error as error:
    raise ValueError(f'{key}={text!r} is not a regular expression: {error}') from error
