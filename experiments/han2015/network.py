"""LeNets on digits: one compiled training for all penalties, dropouts and masks; every cut."""

import functools

import jax
import jax.numpy as jnp
import optax

import prunejax
from prunejax.models import lenet
from prunejax.pruning.paths import named_leaves

KERNEL = '/kernel'
KERNELS = f'.*{KERNEL}'
EVALUATED = 500  # images at a time


def logits(params: dict, images: jax.Array, dropout: tuple, key: jax.Array) -> jax.Array:
  """Compute logits [n, 10], with dropout of LeNet-300-100's hidden units.

  Args:
    params: of `lenet.init`.
    images: float32 [n, 28, 28].
    dropout: rates of the outputs of fc1 and fc2; LeNet-5 has none.
    key: of the dropout.
  """
  if 'conv1' in params:
    return lenet.apply(params, images)
  x = images.reshape(len(images), -1)
  for i, (layer, rate) in enumerate(zip(('fc1', 'fc2'), dropout, strict=True)):
    x = jax.nn.relu(x @ params[layer]['kernel'] + params[layer]['bias'])
    kept = jax.random.uniform(jax.random.fold_in(key, i), x.shape) >= rate
    x = jnp.where(kept, x / (1 - rate), 0)
  return x @ params['fc3']['kernel'] + params['fc3']['bias']


def _loss(params, images, labels, penalties, dropout, key):
  """Cross-entropy, plus l2 / 2 times the squares and l1 times the sizes of the kernels."""
  scores = logits(params, images, dropout, key)
  entropy = optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()
  kernels = [layer['kernel'] for layer in params.values()]
  l2, l1 = penalties
  squares = sum(jnp.sum(kernel**2) for kernel in kernels)
  return entropy + l2 / 2 * squares + l1 * sum(jnp.sum(jnp.abs(kernel)) for kernel in kernels)


@functools.partial(jax.jit, static_argnames=('batch',))
def train(
  key: jax.Array,
  params: dict,
  masks: dict,
  images: jax.Array,
  labels: jax.Array,
  *,
  steps: int,
  rate: float,
  penalties: tuple,
  dropout: tuple,
  batch: int,
) -> dict:
  """Train with Adam on batches drawn at random; pruned weights stay at 0.

  Numbers are arguments of the program, so one program serves every penalty, rate and dropout.

  Args:
    key: of the batches and the dropout.
    params: where training starts.
    masks: True = kept.
    images, labels: training set.
    steps: may be traced.
    rate: first learning rate; it falls to a tenth along half a cosine.
    penalties: strengths of L2 and L1.
    dropout: rates, see `logits`.
    batch: images in a batch.
  """
  tx = optax.scale_by_adam()

  def step(t, carry):
    params, state = carry
    rows_key, drop_key = jax.random.split(jax.random.fold_in(key, t))
    rows = jax.random.randint(rows_key, (batch,), 0, len(images))
    grad = jax.grad(_loss)(params, images[rows], labels[rows], penalties, dropout, drop_key)
    update, state = tx.update(prunejax.masks.apply(grad, masks), state)
    now = rate * (0.1 + 0.45 * (1 + jnp.cos(jnp.pi * t / steps)))
    return jax.tree.map(lambda p, u, m: jnp.where(m, p - now * u, 0), params, update, masks), state

  return jax.lax.fori_loop(0, steps, step, (params, tx.init(params)))[0]


@functools.partial(jax.jit, static_argnames=('how',))
def cut(params: dict, amount, seed: int = 0, *, how: str) -> tuple[dict, dict]:
  """Prune once.

  Args:
    params: the network.
    amount: see `how`.
    seed: of the draws of 'by chance', may be traced.
    how: 'by layer', the smallest weights of each layer, amount {layer: sparsity}; 'by chance', the
      same with chances in place of an order, see `by_chance`; 'threshold', the weights below
      amount {regex of a kernel: multiple of the deviation of its layer}; 'one quality', one such
      multiple for all layers, chosen for the sparsity `amount`.

  Returns:
    (params, masks); biases are kept.
  """
  criterion = {'by layer': prunejax.magnitude(), 'by chance': by_chance(seed)}
  scores = {
    name: score
    for name, score in named_leaves(
      criterion.get(how, prunejax.deviations()).score((), params)
    ).items()
    if name.endswith(KERNEL)
  }
  sparsity = 0.5  # `by_class` and `above` have numbers of their own
  if how == 'one quality':
    sparsity, allocation = amount, prunejax.global_threshold()
  elif how == 'threshold':
    allocation = prunejax.above(amount)
  else:
    allocation = prunejax.by_class({f'{layer}{KERNEL}': share for layer, share in amount.items()})
  masks = prunejax.select_masks(scores, sparsity, allocation=allocation)
  every = [masks.get(name, jnp.ones(w.shape, bool)) for name, w in named_leaves(params).items()]
  masks = jax.tree.unflatten(jax.tree.structure(params), every)
  return prunejax.masks.apply(params, masks), masks


def by_chance(seed: int) -> prunejax.Criterion:
  """Make the criterion that draws which weights go, with chances by their size.

  A score is |w| over an exponential draw. The highest scores are a sample without replacement with
  weights |w| (Efraimidis & Spirakis, 2006). A weight at 0 is never kept before another.

  Args:
    seed: of the draws, may be traced.
  """
  draws = prunejax.random(seed)

  def score(state, params, **arguments):
    uniform = draws.score(state, params, **arguments)
    return jax.tree.map(lambda u, w: jnp.abs(w) / -jnp.log1p(-u), uniform, params)

  return prunejax.Criterion(lambda params: (), lambda state, params, **_: state, score)


@jax.jit
def evaluate(params: dict, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Compute (cross-entropy, accuracy) of images, `EVALUATED` at a time."""

  def one(part):
    images, labels, valid = part
    scores = lenet.apply(params, images)
    losses = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
    return jnp.sum(losses * valid), jnp.sum((jnp.argmax(scores, -1) == labels) * valid)

  size = min(EVALUATED, len(images))
  fill = -len(images) % size
  padded = [jnp.pad(x, ((0, fill),) + ((0, 0),) * (x.ndim - 1)) for x in (images, labels)]
  padded.append(jnp.pad(jnp.ones(len(images)), (0, fill)))
  parts = tuple(x.reshape(-1, size, *x.shape[1:]) for x in padded)
  loss, right = jax.lax.map(one, parts)
  return jnp.sum(loss) / len(images), jnp.sum(right) / len(images)


def kept(params: dict) -> float:
  """Compute the fraction of the weights of all kernels that are not zero."""
  kernels = [layer['kernel'] for layer in params.values()]
  return sum(int(jnp.count_nonzero(k)) for k in kernels) / sum(k.size for k in kernels)
