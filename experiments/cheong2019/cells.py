"""The cells of Cheong & Daniel 2019: one Transformer a seed; pruned step by step, or its weights shared."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import prunejax
from experiments.cheong2019 import sharing
from prunejax.data.translation_task import task
from prunejax.models.transformer_nmt import Transformer
from prunejax.pruning import masks
from prunejax.pruning.paths import named_leaves
from prunejax.sweep import study
from prunejax.train import translation

JUMPS = 9
START = 0.5 / 0.86  # the paper's first sparsity as a share of its last


class Preset(NamedTuple):
  """seeds; what the dense model is; sparsities of pruning; steps and rate of all training after the dense model's."""

  cost: str
  seeds: tuple = (0, 1, 2)
  base: dict = {}  # noqa: RUF012 (never written to)
  sparsities: tuple = (0.5, 0.7, 0.86)
  bits: tuple = (8, 4)
  both: float = 0.5
  steps: int = 100
  rate: float = 5e-4


BASE = {
  'words': 2000,
  'hidden': 128,
  'layers': 2,
  'heads': 4,
  'inner': 256,
  'dropout': 0.1,
  'bounds': [[16, 18]],
  'train': 0,
  'test': 0,
  'batch': 64,
  'together': 10,
  'steps': 700,
  'rate': 2e-3,
  'warmup': 100,
}
TINY = {
  'words': 200,
  'hidden': 16,
  'layers': 1,
  'heads': 2,
  'inner': 32,
  'bounds': [[24, 28]],
  'train': 300,
  'test': 20,
  'batch': 8,
  'together': 2,
  'steps': 4,
  'warmup': 2,
}
PRESETS = {
  'smoke': Preset('seconds', seeds=(0,), base=TINY, sparsities=(0.5,), bits=(4,), steps=4),
  'quick': Preset('three seeds; six to ten minutes a seed on a CPU core that does other work too'),
}


def plan(preset, root):
  """The cells: dense, then pruning, shared values, and both."""
  task(
    root, **_data({**BASE, **preset.base})
  )  # what is missing or wrong is told before anything is trained
  cells = []
  for seed in preset.seeds:
    base = {**BASE, **preset.base, 'data': 'multi30k en-de' if root else 'cipher', 'seed': seed}

    def add(method, sparsity=0.0, bits=32, steps=0, base=base):
      cells.append(
        study.Cell(
          {
            'data': base['data'],
            'method': method,
            'sparsity': sparsity,
            'bits': bits,
            'trained': bool(steps),
            'seed': base['seed'],
          },
          {
            'base': base,
            'method': method,
            'sparsity': sparsity,
            'bits': bits,
            'steps': steps,
            'rate': preset.rate,
          },
        )
      )

    add('dense')
    for sparsity in preset.sparsities:
      add('pruned', sparsity, steps=preset.steps)
    for bits in preset.bits:
      add('k-means', bits=bits)
    add('binarised', bits=1)
    for bits in preset.bits[-1:] + preset.bits[:-1]:
      add('k-means', bits=bits, steps=preset.steps)
    add('binarised', bits=1, steps=preset.steps)
    add('dense', steps=preset.steps)
    add('pruned + binarised', preset.both, bits=1, steps=preset.steps)
  return cells


def measure(settings, root, folder, say):
  """BLEU of one cell on the sentences of the task's test that fit; its bits, and how often they go into dense ones."""
  base, method, bits, steps = (settings[k] for k in ('base', 'method', 'bits', 'steps'))
  data, model = task(root, **_data(base)), _model(base)
  fresh = _fresh(model, base['seed'])

  def fit(kind, params, steps=steps, rate=settings['rate'], **fixed):
    return translation.fit(
      _trainer(kind, model, steps),
      params,
      data.filled,
      steps=steps,
      rate=rate,
      warmup=min(base['warmup'], steps // 4),
      batch=base['batch'],
      together=base['together'],
      seed=base['seed'],
      fixed=fixed.get('fixed'),
      say=say,
    )

  def dense():
    return named_leaves(jax.device_get(fit('dense', fresh, base['steps'], base['rate'])[0].params))

  kept = study.kept(folder, {'cheong2019': base}, dense)
  parent = jax.tree.structure(fresh).unflatten(
    [jnp.asarray(kept[name]) for name in named_leaves(fresh)]
  )
  params, metrics, zeros, count = parent, {}, 'pruned' in method, 0
  if method == 'dense' and steps:
    params = fit('dense', params)[0].params
  if zeros:
    final = {'sparsity': np.float32(settings['sparsity'])}
    state, metrics['train_loss'] = fit('pruned', params, fixed=final)
    params = state.params
  if bits < 32:
    count = 2**bits
    tables, codes = sharing.share(params, count, zeros)
    if steps:
      tables = fit('shared', tables, fixed=codes)[0].params
    params = sharing.opened(tables, codes)
  width, length = base['bounds'][-1]
  said = translation.translate(
    model, params, data.tokenizer, data.test.source, width=width, length=length
  )
  metrics |= {'bleu': translation.bleu(said, data.test.target), 'sentences': len(said)}
  metrics['removed'] = masks.sparsity(params, sharing.WHERE)['total']
  before, after = sharing.bits(parent), sharing.bits(params, count, zeros)
  rest = lambda found: found['matrices'] + found['rest']
  metrics['compression'] = rest(before) / rest(after)
  metrics['compression_with_embeddings'] = sum(before.values()) / sum(after.values())
  return metrics | {'megabits': rest(after) / 1e6}


@functools.lru_cache
def _trainer(kind, model, steps):
  last = None
  if kind == 'pruned':
    every = max(steps // (JUMPS + 2), 1)
    jumps = min(JUMPS, steps // every - 1)  # the last one must come before the last step

    def last(fixed):
      final = fixed['sparsity']
      return prunejax.prune_transform(
        prunejax.magnitude(),
        prunejax.staircase(START * final, final, steps=every, jumps=jumps),
        when=prunejax.every(every),
        allocation=prunejax.uniform(),
        where=sharing.WHERE,
      )

  if kind == 'shared':  # the tables train, all of them: zeros are kept by the codes
    links = translation.links(sharing.WHERE, lambda fixed: optax.identity())
    return translation.trainer(model, links, view=sharing.opened)
  return translation.trainer(
    model, translation.links(sharing.WHERE, last), view=lambda params, fixed: params
  )


@functools.lru_cache
def _fresh(model, seed):
  ids = np.ones((2, 4), np.int32)
  return jax.jit(model.init)(jax.random.key(seed), ids, ids)['params']


def _model(base):
  return Transformer(
    base['words'], *(base[k] for k in ('hidden', 'layers', 'heads', 'inner', 'dropout'))
  )


def _data(base):
  return {
    'words': base['words'],
    'bounds': tuple(map(tuple, base['bounds'])),
    'train': base['train'] or None,
    'test': base['test'] or None,
  }
