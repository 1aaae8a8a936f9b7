"""One-shot pruning without recovery: SparseGPT (Frantar & Alistarh, 2023), Wanda (Sun et al., 2023) and oBERT (Kurtic
et al., 2022) on the small BERT of the package.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

import prunejax
from configs import pretrain
from experiments.oneshot2023 import claims
from prunejax.sweep import study
from prunejax.train import evaluate, optimizer, program

WHERE = r'encoder/.*/kernel'
FISHER = {
  'block': 8,
  'gradients': 16,
}  # of the paper's 50 and 1024: what a few minutes on a shared core allow
# method: (criterion, allocation, moves of the masks)
METHODS = {
  'magnitude': (prunejax.magnitude, prunejax.uniform, 1),
  'wanda': (prunejax.wanda, prunejax.per_output, 1),
  'sparsegpt': (prunejax.sparsegpt, prunejax.uniform, 1),
  'fisher 1': (functools.partial(prunejax.block_fisher, **FISHER), prunejax.global_threshold, 1),
  'fisher 4': (functools.partial(prunejax.block_fisher, **FISHER), prunejax.global_threshold, 4),
}


class Preset(NamedTuple):
  """batches: held-out batches of 128 sequences; calibration: sequences."""

  methods: tuple
  sparsities: tuple
  seeds: tuple
  batches: int
  calibration: int
  cost: str


PRESETS = {
  'smoke': Preset(('magnitude',), (0.5,), (0,), 1, 8, 'seconds'),
  'quick': Preset(
    ('magnitude', 'wanda', 'sparsegpt'), (0.5, 0.6, 0.7, 0.8), (0, 1, 2), 4, 64, 'two CPU minutes'
  ),
  'fisher': Preset(
    ('magnitude', 'fisher 1', 'fisher 4'), (0.7, 0.8), (0, 1, 2), 4, 64, 'not run yet; minutes'
  ),
}


def plan(preset, root):
  """One cell a method, pattern, sparsity and draw of the calibration sequences; magnitude needs no such draw."""
  cells = []
  for method in preset.methods:
    costly = method.startswith('fisher')
    patterns = [('unstructured', s) for s in preset.sparsities if s >= 0.7 or not costly]
    patterns += [] if costly else [('2:4', 0.5)]
    for pattern, sparsity in patterns:
      for seed in preset.seeds[:1] if method == 'magnitude' else preset.seeds:
        labels = {'method': method, 'pattern': pattern, 'sparsity': sparsity, 'seed': seed}
        fisher = FISHER if costly else {}
        sizes = {'batches': preset.batches, 'calibration': preset.calibration}
        cells.append(study.Cell(labels, {**labels, **sizes, **fisher}))
  return cells


def measure(settings, root, folder, say):
  """Held-out loss just after pruning, and that of the dense model."""
  del root, folder, say
  data, made, params, dense = _start(settings['batches'], settings['calibration'])
  prune, moves = _pruner(
    settings['method'], settings['pattern'], settings['batches'], settings['calibration']
  )
  batch, new = data.train(settings['seed']), params
  for move in range(1, moves + 1):
    new, spoilt = prune(new, batch, settings['sparsity'] * move / moves)
    if bool(spoilt):
      raise FloatingPointError('a score or a change is not finite')
  loss = evaluate.pretraining(made.measure, new, data.held_out())['loss']
  got = prunejax.masks.sparsity(new, WHERE)['total']
  return {'loss': loss, 'dense_loss': dense, 'got': got}


@functools.cache
def _start(batches, calibration):
  """(data, program, weights, dense loss) of the packaged model."""
  config = pretrain.get_config('nano')
  config.unlock()
  config.eval.batches, config.batch_size = batches, calibration
  source, data = program.read_inputs(config)
  tx = optimizer.make(config)
  made = program.build(config, source, data, tx)
  loaded = program.pretrained(
    config, source, made, program.abstract_state(config, made, tx)['params']
  )
  params = program.initial_state(config, made, tx, loaded)['params']
  return data, made, params, evaluate.pretraining(made.measure, params, data.held_out())['loss']


@functools.cache
def _pruner(method, pattern, batches, calibration):
  """(compiled (params, batch, sparsity) -> (params, whether something is NaN), moves of the masks)."""
  criterion, allocation, moves = METHODS[method]
  made = _start(batches, calibration)[1]
  structure = prunejax.n_m(2, 4) if pattern == '2:4' else prunejax.unstructured()

  @jax.jit
  def prune(params, batch, sparsity):
    tx = prunejax.prune_transform(
      criterion(),
      prunejax.constant(sparsity),
      allocation=allocation(),
      structure=structure,
      where=WHERE,
    )
    told = made.observe(lambda p: p, batch, jax.random.key(0))
    updates, state = tx.update(
      jax.tree.map(jnp.zeros_like, params), tx.init(params), params, **told
    )
    return optax.apply_updates(params, updates), jnp.any(state.prune_nan > 0)

  return prune, moves


STUDY = study.Study(
  name='oneshot2023',
  title='One-shot pruning without recovery on the small BERT',
  source='Frantar & Alistarh 2023 (SparseGPT), Sun et al. 2023 (Wanda), Kurtic et al. 2022 (oBERT)',
  presets=PRESETS,
  plan=plan,
  measure=measure,
  claims=claims.verdicts_of,
  tables=claims.tables_of,
  figures=claims.figures_of,
  captions={
    'loss': 'Held-out loss just after pruning, mean over draws of the calibration set. Dashed: dense.'
  },
)
reproduce, write_report, redraw, compare = study.verbs(STUDY)
