"""Train one translation model, dense or pruned gradually, and score it by BLEU.

One compiled program serves all sparsities of a size and an allocation.
"""

import functools

import jax
import numpy as np

import prunejax
from experiments.translation import decoding, task, training
from prunejax.models import seq2seq
from prunejax.pruning import masks

# Who pays: the same sparsity in each matrix, or one threshold for all of them.
ALLOCATIONS = {
  '': prunejax.uniform,
  'layer': prunejax.uniform,
  'global': prunejax.global_threshold,
}


def measure(settings: dict, root: str, folder, say) -> dict:
  """Train one cell and translate the test sentences.

  Args:
    settings: of a cell of `study.plan`.
    root: folder that holds `multi30k/`, or ''.
    folder: unused.
    say: prints a line of progress.

  Returns:
    BLEU, training loss, non-zeros, parameters, and the sparsity of the matrices.

  Raises:
    FloatingPointError: if a loss is not finite.
  """
  del folder
  data = task.load_for(settings, root)
  sizes = (settings[k] for k in ('words', 'hidden', 'layers', 'dropout'))
  model = seq2seq.Seq2Seq(*sizes)
  ramp = tuple(settings[k] for k in ('begin', 'end', 'interval'))
  state, loss = training.fit(
    _trainer(model, settings['allocation'], *ramp),
    training.initial_params(model, settings['seed']),
    data.buckets,
    **{k: settings[k] for k in ('steps', 'rate', 'warmup', 'batch', 'together', 'seed')},
    fixed={'sparsity': np.float32(settings['sparsity'])},
    say=say,
  )
  leaves = jax.tree.leaves(state.params)
  return {
    **decoding.score(model, state.params, data),
    'train_loss': loss,
    'nonzeros': sum(int(np.count_nonzero(np.asarray(leaf))) for leaf in leaves),
    'parameters': sum(leaf.size for leaf in leaves),
    'sparsity': masks.sparsity(prunejax.get_masks(state.opt_state, state.params), seq2seq.PRUNABLE)[
      'total'
    ],
  }


@functools.lru_cache
def _trainer(model, allocation, begin, end, interval):
  def last(fixed):
    return prunejax.prune_transform(
      prunejax.magnitude(),
      prunejax.cubic(fixed['sparsity'], begin=begin, end=end),
      # Masks stay fixed once the target is reached (section 3 of the paper).
      prunejax.until(end, prunejax.every(interval, begin=begin)),
      allocation=ALLOCATIONS[allocation](),
      where=seq2seq.PRUNABLE,
    )

  return training.trainer(model, training.links(seq2seq.PRUNABLE, last))
