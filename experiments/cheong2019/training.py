"""Train one cell: the dense model, then pruning by a staircase, or shared weights, or both."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import prunejax
from experiments.cheong2019 import shared_weights
from experiments.translation import decoding, task, training
from prunejax.models.transformer_nmt import Transformer
from prunejax.pruning import masks
from prunejax.pruning.paths import named_leaves
from prunejax.sweep import study

JUMPS = 9
START = 0.5 / 0.86  # The paper's first sparsity as a fraction of its last.


def measure(settings: dict, root: str, folder, say) -> dict:
  """Train one cell and score it on the task's test sentences.

  Args:
    settings: of a cell of `study.plan`.
    root: folder that holds `multi30k/`, or ''.
    folder: work directory; the dense model is kept there for the seed's other cells.
    say: prints a line of progress.

  Returns:
    BLEU, the sparsity, the compression rates by counted bits, and the size in megabits.

  Raises:
    FloatingPointError: if a loss is not finite.
  """
  base, method, bits, steps = (settings[k] for k in ('base', 'method', 'bits', 'steps'))
  data, model = task.load_for(base, root), _model(base)
  initial = training.initial_params(model, base['seed'])

  def fit(kind, params, steps=steps, rate=settings['rate'], fixed=None):
    return training.fit(
      _trainer(kind, model, steps),
      params,
      data.buckets,
      steps=steps,
      rate=rate,
      warmup=min(base['warmup'], steps // 4),
      batch=base['batch'],
      together=base['together'],
      seed=base['seed'],
      fixed=fixed,
      say=say,
    )

  def train_dense():
    state, _ = fit('dense', initial, base['steps'], base['rate'])
    return named_leaves(jax.device_get(state.params))

  made_of = {'cheong2019': base, 'vocabulary': data.vocabulary, 'reads': settings.get('reads')}
  dense_leaves = study.kept(folder, made_of, train_dense)
  dense = jax.tree.structure(initial).unflatten(
    [jnp.asarray(dense_leaves[name]) for name in named_leaves(initial)]
  )
  params, metrics, zeros, count = dense, {}, 'pruned' in method, 0
  if method == 'dense' and steps:
    params = fit('dense', params)[0].params
  if zeros:
    final = {'sparsity': np.float32(settings['sparsity'])}
    state, metrics['train_loss'] = fit('pruned', params, fixed=final)
    params = state.params
  if bits < 32:
    count = 2**bits
    centroids, codes = shared_weights.share(params, count, zeros)
    if steps:
      centroids = fit('shared', centroids, fixed=codes)[0].params
    params = shared_weights.expand(centroids, codes)
  metrics |= decoding.score(model, params, data)
  metrics['removed'] = masks.sparsity(params, shared_weights.WHERE)['total']
  bits_before = shared_weights.bits(dense)
  bits_after = shared_weights.bits(params, count, zeros)
  without_embeddings = lambda size: size['matrices'] + size['rest']
  metrics['compression'] = without_embeddings(bits_before) / without_embeddings(bits_after)
  metrics['compression_with_embeddings'] = sum(bits_before.values()) / sum(bits_after.values())
  return metrics | {'megabits': without_embeddings(bits_after) / 1e6}


@functools.lru_cache
def _trainer(kind, model, steps):
  last = None
  if kind == 'pruned':
    every = max(steps // (JUMPS + 2), 1)
    jumps = min(JUMPS, steps // every - 1)  # The last jump must come before the last step.

    def last(fixed):
      final = fixed['sparsity']
      return prunejax.prune_transform(
        prunejax.magnitude(),
        prunejax.staircase(START * final, final, steps=every, jumps=jumps),
        when=prunejax.every(every),
        allocation=prunejax.uniform(),
        where=shared_weights.WHERE,
      )

  if kind == 'shared':  # The codes keep the zeros, so every centroid may be trained.
    chain = training.links(shared_weights.WHERE, lambda fixed: optax.identity())
    return training.trainer(model, chain, view=shared_weights.expand)
  return training.trainer(model, training.links(shared_weights.WHERE, last))


def _model(base):
  sizes = (base[k] for k in ('hidden', 'layers', 'heads', 'inner', 'dropout'))
  return Transformer(base['words'], *sizes)
