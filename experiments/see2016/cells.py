"""The cells of See, Luong & Manning 2016: one LSTM translation model a seed, pruned by three schemes."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import prunejax
from prunejax.data.translation_task import task
from prunejax.models import seq2seq
from prunejax.pruning import masks
from prunejax.pruning.paths import named_leaves
from prunejax.sweep import study
from prunejax.train import translation

CLASSES = {
  'source embedding': r'source/embedding/embedding',
  'target embedding': r'target/embedding/embedding',
  'source layer': r'source/layer_\d+/.*',
  'target layer': r'target/layer_\d+/.*',
  'attention': r'attention/.*',
  'softmax': r'softmax/kernel',
}
# Biases are of no class: the paper prunes matrices.
_MATRIX = {name: rf'(?!.*/bias)({pattern})' for name, pattern in CLASSES.items()}
SCHEMES = {
  'class-blind': prunejax.global_threshold,
  'class-uniform': prunejax.uniform,
  'class-distribution': lambda: prunejax.class_distribution(list(_MATRIX.values())),
}


class Preset(NamedTuple):
  """seeds; what the dense model is; sparsities of one shot, of retraining, of a class alone; steps of retraining."""

  cost: str
  seeds: tuple = (0, 1, 2)
  base: dict = {}  # noqa: RUF012 (never written to)
  shots: tuple = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
  alone: tuple = (0.9,)
  classes: tuple = tuple(CLASSES)
  again: tuple = (('class-blind', 0.8),)
  scratch: tuple = (0.8,)
  steps: int = 150
  rate: float = 1e-3


BASE = {
  'words': 2000,
  'hidden': 128,
  'layers': 1,
  'dropout': 0.2,
  'bounds': [[16, 18]],
  'train': 0,
  'test': 0,
  'batch': 64,
  'together': 8,
  'steps': 800,
  'rate': 3e-3,
  'warmup': 80,
}
TINY = {
  'words': 200,
  'hidden': 16,
  'bounds': [[24, 28]],
  'train': 300,
  'test': 20,
  'batch': 8,
  'together': 2,
  'steps': 4,
  'warmup': 2,
}
PRESETS = {
  'smoke': Preset('seconds', seeds=(0,), base=TINY, shots=(0.5,), classes=(), steps=2),
  'quick': Preset(
    'three seeds; five to nine minutes a seed on a CPU core that does other work too'
  ),
  'long': Preset(
    'three seeds; the claims about retraining alone, trained and retrained for longer; seven minutes a seed',
    base={'steps': 1200},
    steps=600,
    shots=(0.8,),
    classes=(),
  ),
}


def plan(preset, root):
  """The cells: dense and one-shot first, then a class alone, retraining, and sparse from scratch."""
  task(
    root, **_data({**BASE, **preset.base})
  )  # what is missing or wrong is told before anything is trained
  cells = []
  for seed in preset.seeds:
    base = {**BASE, **preset.base, 'data': 'multi30k en-de' if root else 'cipher', 'seed': seed}
    add = lambda method, scheme, sparsity, base=base, **more: cells.append(
      study.Cell(
        {
          'data': base['data'],
          'method': method,
          'scheme': scheme,
          'sparsity': sparsity,
          'seed': base['seed'],
        },
        {'base': base, 'method': method, 'scheme': scheme, 'sparsity': sparsity, **more},
      )
    )
    more = {'steps': preset.steps, 'rate': preset.rate}
    add('dense', '', 0.0)
    for sparsity in preset.shots:
      for scheme in SCHEMES:
        add('one shot', scheme, sparsity)
    for name in preset.classes:
      for sparsity in preset.alone:
        add('class alone', name, sparsity)
    add('retrained', '', 0.0, **more)
    for scheme, sparsity in preset.again:
      add('retrained', scheme, sparsity, **more)
    for sparsity in preset.scratch:
      add('from scratch', 'class-blind', sparsity, **more)
  return cells


def measure(settings, root, folder, say):
  """BLEU of one cell on the sentences of the task's test that fit, and the share of each class that is removed."""
  base, method, scheme, sparsity = (settings[k] for k in ('base', 'method', 'scheme', 'sparsity'))
  data, model = task(root, **_data(base)), _model(base)
  fresh = _fresh(model, base['seed'])
  shape = jax.tree.structure(fresh)

  def dense():
    state, loss = _fit(data, fresh, base, base['steps'], base['rate'], say)
    say(f'dense: training loss {loss:.3f}')
    return named_leaves(jax.device_get(state.params))

  kept = study.kept(folder, {'see2016': base}, dense)
  params = shape.unflatten([jnp.asarray(kept[name]) for name in named_leaves(fresh)])
  metrics = {}
  if method == 'class alone':
    params = prune(params, 'class-uniform', sparsity, _MATRIX[scheme])
  elif scheme:
    params = prune(params, scheme, sparsity)
  if method == 'from scratch':
    params = masks.apply(fresh, masks.from_zeros(params, seq2seq.PRUNABLE))
    state, metrics['train_loss'] = _fit(
      data, params, base, base['steps'] + settings['steps'], base['rate'], say
    )
    params = state.params
  elif method == 'retrained':
    state, metrics['train_loss'] = _fit(
      data, params, base, settings['steps'], settings['rate'], say
    )
    params = state.params
  width, length = base['bounds'][-1]
  said = translation.translate(
    model, params, data.tokenizer, data.test.source, width=width, length=length
  )
  metrics |= {'bleu': translation.bleu(said, data.test.target), 'sentences': len(said)}
  metrics |= {
    f'removed {name}': masks.sparsity(params, pattern)['total'] for name, pattern in _MATRIX.items()
  }
  return metrics | {'removed': masks.sparsity(params, seq2seq.PRUNABLE)['total']}


def prune(params, scheme, sparsity, where=seq2seq.PRUNABLE):
  """`params` with the weights of `where` that `scheme` removes at zero: one step of `prune_transform`, in one shot."""
  return _pruner(scheme, where)(params, jnp.float32(sparsity))


@functools.lru_cache
def _pruner(scheme, where):
  @jax.jit
  def run(params, sparsity):
    tx = prunejax.prune_transform(
      prunejax.magnitude(), prunejax.constant(sparsity), allocation=SCHEMES[scheme](), where=where
    )
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    return optax.apply_updates(params, updates)

  return run


def _fit(data, params, base, steps, rate, say):
  return translation.fit(
    _trainer(_model(base)),
    params,
    data.filled,
    steps=steps,
    rate=rate,
    warmup=base['warmup'],
    batch=base['batch'],
    together=base['together'],
    seed=base['seed'],
    say=say,
  )


@functools.lru_cache
def _trainer(model):
  return translation.trainer(model, translation.links(seq2seq.PRUNABLE))


@functools.lru_cache
def _fresh(model, seed):
  ids = np.ones((2, 4), np.int32)
  return jax.jit(model.init)(jax.random.key(seed), ids, ids)['params']


def _model(base):
  return seq2seq.Seq2Seq(base['words'], base['hidden'], base['layers'], base['dropout'])


def _data(base):
  return {
    'words': base['words'],
    'bounds': tuple(map(tuple, base['bounds'])),
    'train': base['train'] or None,
    'test': base['test'] or None,
  }
