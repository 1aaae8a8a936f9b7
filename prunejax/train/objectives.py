"""What a step minimises, and what a held-out batch is measured by.

Each objective takes a model and returns pure functions. The last is residuals(params, batch) ->
outputs with the curvature of the loss without a teacher; see gauss_newton.py.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from prunejax.train import gauss_newton


def _inputs(batch):
  return batch['input_ids'], batch['segment_ids'], batch['valid']


def distillation(temperature: float = 2.0, weight: float = 0.5) -> Callable:
  """Makes the soft part of an objective, for its argument `soft` (Hinton, Vinyals & Dean 2015).

  A loss becomes weight T^2 KL(teacher at T || model at T) + (1 - weight) loss. Both distributions
  are the softmax of logits / T. The batch holds the teacher's logits of each head as
  'teacher_<head>' (train/distillation.py).

  Args:
    temperature: T.
    weight: of the soft targets, in [0, 1].

  Returns:
    A function (loss, out, batch, weights={}) -> (loss, metrics with 'teacher_kl', the divergence at
    T). `out` is {head: logits}. `weights` is {head: weights of its positions}, for heads whose
    positions do not all count alike.
  """
  if not 0 < temperature < float('inf'):
    raise ValueError(f'distillation: temperature={temperature} must be above 0')
  if not 0 <= weight <= 1:
    raise ValueError(f'distillation: weight={weight} must be a share in [0, 1]')

  def soft(loss, out, batch, weights={}):  # noqa: B006 (read only)
    total = 0.0
    for head, logits in out.items():
      teacher = jax.lax.stop_gradient(batch[f'teacher_{head}'])
      divergence = optax.losses.kl_divergence_with_log_targets(
        jax.nn.log_softmax(logits / temperature), jax.nn.log_softmax(teacher / temperature)
      )
      counts = weights.get(head, jnp.ones(divergence.shape))
      total += (divergence * counts).sum() / jnp.maximum(counts.sum(), 1)
    return weight * temperature**2 * total + (1 - weight) * loss, {'teacher_kl': total}

  return soft


def _hard(loss, out, batch, weights=None):
  """Without a teacher."""
  return loss, {}


def pretraining(model, soft=_hard):
  """Makes BERT's objective: masked-LM plus next-sentence cross-entropy.

  Args:
    model: a Flax module.
    soft: of `distillation`, for a run with a teacher.

  Returns:
    loss_fn(params, batch, rng, deterministic=False) -> (loss, metrics); sums(params, batch) ->
    {name: (sum, count)}, whose totals over many batches give means; and residuals.
  """

  def terms(params, batch, **how):
    out = model.apply({'params': params}, *_inputs(batch), batch['positions'], **how)
    cross = optax.softmax_cross_entropy_with_integer_labels
    mlm = cross(out['mlm'], batch['targets']) * batch['weights']
    return out, mlm, cross(out['nsp'], batch['is_random'])

  def loss_fn(params, batch, rng, deterministic=False):
    out, mlm, nsp = terms(params, batch, deterministic=deterministic, rngs={'dropout': rng})
    mlm_loss, nsp_loss = mlm.sum() / jnp.maximum(batch['weights'].sum(), 1), nsp.mean()
    logits = {head: out[head] for head in ('mlm', 'nsp')}
    loss, metrics = soft(mlm_loss + nsp_loss, logits, batch, {'mlm': batch['weights']})
    return loss, {'mlm_loss': mlm_loss, 'nsp_loss': nsp_loss, **metrics}

  def sums(params, batch):
    out, mlm, nsp = terms(params, batch, deterministic=True)
    right = (out['mlm'].argmax(-1) == batch['targets']) * batch['weights']
    follows = out['nsp'].argmax(-1) == batch['is_random']
    predicted, pairs = batch['weights'].sum(), jnp.float32(len(nsp))
    return {
      'mlm_loss': (mlm.sum(), predicted),
      'mlm_accuracy': (right.sum(), predicted),
      'nsp_loss': (nsp.sum(), pairs),
      'nsp_accuracy': (follows.sum(), pairs),
    }

  def curved(params, batch):
    out, weights = terms(params, batch, deterministic=True)[0], batch['weights']
    shares = weights / jnp.maximum(weights.sum(), 1)
    return gauss_newton.of_softmax(out['mlm'], shares), gauss_newton.of_softmax(
      out['nsp'], 1 / len(out['nsp'])
    )

  return loss_fn, sums, curved


def masked(model, soft=_hard):
  """Makes the masked-LM objective of an encoder without pairs; see `pretraining`."""

  def terms(params, batch, **how):
    out = model.apply({'params': params}, *_inputs(batch), batch['positions'], **how)['mlm']
    cross = optax.softmax_cross_entropy_with_integer_labels(out, batch['targets'])
    return out, cross * batch['weights']

  return _of_positions(terms, 'mlm', soft)


def permutation(model, soft=_hard):
  """Makes XLNet's objective: each predicted token from those that its order lets it see.

  With `memory_ids` in the batch, the tokens before it are run first, and their hidden states are
  its memories (Yang et al. 2019, section 2.4).

  Args:
    model: a Flax module.
    soft: there is no teacher.

  Returns:
    As `pretraining`.

  Raises:
    ValueError: a teacher.
  """
  if soft is not _hard:
    raise ValueError('distill.teacher: the permutation objective of an XLNet takes no teacher')

  def terms(params, batch, **how):
    given = {'permuted': batch['permuted']}
    if 'memory_ids' in batch:
      ids, there = batch['memory_ids'], batch['memory_valid']
      before = model.apply({'params': params}, ids, 0 * ids, there, deterministic=True)
      given |= {'memories': before['memories'], 'memory_valid': there}
    out = model.apply({'params': params}, *_inputs(batch), batch['positions'], **given, **how)
    cross = optax.softmax_cross_entropy_with_integer_labels(out['lm'], batch['targets'])
    return out['lm'], cross * batch['weights']

  return _of_positions(terms, 'lm', soft)


def _of_positions(terms, head, soft):
  """The functions of an objective that predicts some positions, from (logits, weighted losses)."""

  def loss_fn(params, batch, rng, deterministic=False):
    out, losses = terms(params, batch, deterministic=deterministic, rngs={'dropout': rng})
    weights = batch['weights']
    loss = losses.sum() / jnp.maximum(weights.sum(), 1)
    total, metrics = soft(loss, {head: out}, batch, {head: weights})
    return total, {f'{head}_loss': loss, **metrics}

  def sums(params, batch):
    out, losses = terms(params, batch, deterministic=True)
    right = (out.argmax(-1) == batch['targets']) * batch['weights']
    predicted = batch['weights'].sum()
    return {
      f'{head}_loss': (losses.sum(), predicted),
      f'{head}_accuracy': (right.sum(), predicted),
    }

  def curved(params, batch):
    out, weights = terms(params, batch, deterministic=True)[0], batch['weights']
    return gauss_newton.of_softmax(out, weights / jnp.maximum(weights.sum(), 1))

  return loss_fn, sums, curved


def causal(model, soft=_hard):
  """Makes a decoder's objective, the cross-entropy of each next token; see `pretraining`."""

  def terms(params, batch, **how):
    out = model.apply({'params': params}, *_inputs(batch), **how)['lm']
    return out, optax.softmax_cross_entropy_with_integer_labels(out, batch['targets'])

  def loss_fn(params, batch, rng, deterministic=False):
    out, lm = terms(params, batch, deterministic=deterministic, rngs={'dropout': rng})
    return soft(lm.mean(), {'lm': out}, batch)

  def sums(params, batch):
    out, lm = terms(params, batch, deterministic=True)
    predicted = jnp.float32(lm.size)
    return {
      'lm_loss': (lm.sum(), predicted),
      'lm_accuracy': ((out.argmax(-1) == batch['targets']).sum().astype(jnp.float32), predicted),
    }

  def curved(params, batch):
    out, lm = terms(params, batch, deterministic=True)
    return gauss_newton.of_softmax(out, 1 / lm.size)

  return loss_fn, sums, curved


def finetuning(model, regression=False, soft=_hard):
  """Makes the objective of a task: cross-entropy, or squared error for a regression (STS-B).

  Args:
    model: a Flax module.
    regression: the task is a regression.
    soft: of `distillation`, for a run with a teacher.

  Returns:
    loss_fn(params, batch, rng) -> (loss, metrics); predict(params, batch) -> (loss of each example
    [b], outputs [b, n]); and residuals.
  """

  def terms(params, batch, **how):
    out = model.apply({'params': params}, *_inputs(batch), **how)['classifier']
    if regression:
      return jnp.square(out[:, 0] - batch['label']), out
    return optax.softmax_cross_entropy_with_integer_labels(out, batch['label']), out

  def loss_fn(params, batch, rng, deterministic=False):
    loss, out = terms(params, batch, deterministic=deterministic, rngs={'dropout': rng})
    return soft(loss.mean(), {'classifier': out}, batch)

  def predict(params, batch):
    return terms(params, batch, deterministic=True)

  def curved(params, batch):
    loss, out = terms(params, batch, deterministic=True)
    per = 1 / len(loss)
    return (
      gauss_newton.of_square(out[:, 0]) * per**0.5
      if regression
      else gauss_newton.of_softmax(out, per)
    )

  return loss_fn, predict, curved


def spans(model, soft=_hard):
  """Makes the objective of a span head: the mean cross-entropy of the first and the last token.

  Args:
    model: a Flax module.
    soft: there is no teacher.

  Returns:
    As `finetuning`; the outputs are the logits [b, length, 2].

  Raises:
    ValueError: a teacher.
  """
  if soft is not _hard:
    raise ValueError('distill.teacher: a task of spans takes no teacher')

  def terms(params, batch, **how):
    out = model.apply({'params': params}, *_inputs(batch), **how)['spans']
    cross = optax.softmax_cross_entropy_with_integer_labels
    return (cross(out[..., 0], batch['label']) + cross(out[..., 1], batch['end'])) / 2, out

  def loss_fn(params, batch, rng, deterministic=False):
    loss, _ = terms(params, batch, deterministic=deterministic, rngs={'dropout': rng})
    return loss.mean(), {}

  def predict(params, batch):
    return terms(params, batch, deterministic=True)

  def curved(params, batch):
    loss, out = terms(params, batch, deterministic=True)
    return gauss_newton.of_softmax(jnp.moveaxis(out, 2, 1), 1 / (2 * len(loss)))

  return loss_fn, predict, curved


def flops(size, params, seq_len, predictions):
  """Returns the matmul FLOPs of one training example.

  They are 6 for each weight and token that meet, and 12 length x hidden for each layer's attention.
  The word table counts where it multiplies (the softmax, at predicted positions only), not where it
  is looked up; in BERT another map stands before it. Attention is counted whole, as it is computed,
  though a decoder uses half of it.

  Args:
    size: of the model.
    params: its parameters or their shapes.
    seq_len: tokens of an example.
    predictions: tokens to predict of an example.
  """
  weights = sum(
    p.size
    for path, p in jax.tree_util.tree_leaves_with_path(params)
    if p.ndim == 2 and jax.tree_util.keystr(path, simple=True, separator='/').startswith('encoder')
  )
  transform = size.hidden_size if 'bert' in size.model_type else 0
  head = predictions * (size.vocab_size + transform) * size.hidden_size
  attention = 2 * size.num_hidden_layers * seq_len**2 * size.hidden_size
  return 6 * (weights * seq_len + head + attention)
