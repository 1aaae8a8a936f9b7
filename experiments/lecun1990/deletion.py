"""Delete weights of one trained network, without retraining and with it, and measure the losses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lecun1990 import claims, network
from prunejax.data import handwritten_digits as digits


def measure(settings: dict, root: str, folder, say) -> dict:
  """Measure losses and accuracies of one cell against the sparsity.

  Args:
    settings: of a cell of `study.plan`.
    root: folder that holds `mnist/`, or ''.
    folder, say: unused.

  Returns:
    The sparsities; losses and accuracies on train and test at each, under 'plain_...' without and
    'retrained_...' with retraining; for OBD also the predicted loss, and at `claims.JUDGED` the
    rises of single deletions and the share of saturated units. 'obd again' has, for the weights
    that OBD deletes up to `claims.JUDGED`, the predicted rise with all cross terms and the rise
    that the costliest unit makes alone.

  Raises:
    FloatingPointError: if a loss is not finite.
  """
  del folder, say
  sizes = (settings[k] for k in ('train', 'test', 'wide', 'steps', 'rate', 'batch'))
  data, params = _trained(root, str(settings.get('reads')), settings['seed'], *sizes)
  train, test = (data.train_images, data.train_labels), (data.test_images, data.test_labels)
  evaluate = lambda p: [float(v) for part in (train, test) for v in network.evaluate(p, *part)]
  names = ('train_loss', 'train_accuracy', 'test_loss', 'test_accuracy')
  examples = train[0][: settings['curvature']]
  cuts = settings['cuts'] if settings['method'] != 'random' else ()
  again = settings['method'] == claims.AGAIN
  method = 'obd' if again else settings['method']
  score = lambda p: network.scores(p, examples, settings['seed'], method=method)
  # The paper's quadratic model is of its own order; for the other orders it says little.
  saliency = network.saliency(params, examples) if method == 'obd' else None
  metrics = {
    'weights': sum(w.size for w in jax.tree.leaves(params)),
    'curve': list(settings['curve']),
    'cuts': [0.0, *cuts],
  }

  dense_scores = score(params)
  plain, predicted = [], []
  if again:
    plain, predicted = _again(params, settings, score, evaluate, examples)
    masks = network.cut(params, dense_scores, jnp.float32(claims.JUDGED))[1]
    metrics['cross'] = float(network.rise_with_cross_terms(params, masks, examples))
    metrics |= network.costliest_unit(params, masks, *train)
  for sparsity in () if again else settings['curve']:
    pruned, masks = network.cut(params, dense_scores, jnp.float32(sparsity))
    plain.append(evaluate(pruned))
    if saliency is None:
      continue
    deleted = jax.tree.map(lambda mask, c: jnp.sum(jnp.where(mask, 0, c)), masks, saliency)
    predicted.append(float(sum(jax.tree.leaves(deleted))))
    if sparsity == claims.JUDGED:
      metrics['alone'] = network.rise_one_by_one(params, masks, *train)
      metrics['saturated'] = float(network.saturated(params, train[0]))

  retrained, now = [evaluate(params)], params
  for i, sparsity in enumerate(cuts):
    now, masks = network.cut(now, score(now), jnp.float32(sparsity))
    key = jax.random.key(2000 + 100 * settings['seed'] + i)
    now = network.train(
      key, now, masks, *train, settings['retrain'], settings['rate'], batch=settings['batch']
    )
    retrained.append(evaluate(now))
  if not np.isfinite(retrained + plain).all():
    raise FloatingPointError('a loss is not finite')
  for kind, lines in (('plain', plain), ('retrained', retrained)):
    metrics |= {
      f'{kind}_{name}': [round(v, 5) for v in column]
      for name, column in zip(names, np.transpose(lines).tolist(), strict=True)
    }
  dense_loss = retrained[0][0]
  metrics['predicted_train_loss'] = [round(dense_loss + rise, 5) for rise in predicted]
  return metrics


def _again(params, settings, score, evaluate, examples):
  """Losses and predicted rises of the curve, with saliencies computed again on the way."""
  levels = {round(settings['again'] * i, 6) for i in range(1, round(1 / settings['again']))}
  curve = settings['curve']
  plain, predicted, now, rise = {}, {}, params, 0.0
  for sparsity in sorted(levels | set(curve)):
    if sparsity > max(curve):
      break
    before, saliency = now, network.saliency(now, examples)
    now, masks = network.cut(now, score(now), jnp.float32(sparsity))
    gone = jax.tree.map(
      lambda mask, w, c: jnp.sum(jnp.where(mask | (w == 0), 0, c)), masks, before, saliency
    )
    rise += float(sum(jax.tree.leaves(gone)))
    if sparsity in curve:
      plain[sparsity], predicted[sparsity] = evaluate(now), rise
  return [plain[s] for s in curve], [predicted[s] for s in curve]


@functools.cache
def _trained(root, content_read, seed, train, test, wide, steps, rate, batch):
  """(data, trained parameters). `content_read` tells one content of the files from another."""
  del content_read
  data = digits.load(root, train, test)
  params = network.init(seed, data.train_images.shape[1], wide)
  masks = jax.tree.map(lambda w: jnp.ones(w.shape, bool), params)
  key = jax.random.key(1000 + seed)
  return data, network.train(
    key, params, masks, data.train_images, data.train_labels, steps, rate, batch=batch
  )
