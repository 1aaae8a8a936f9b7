"""One cell: dense, pruned to the paper's shares with retraining, weights shared, centroids trained, a file."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

import prunejax
from experiments.han2016 import paper
from prunejax.compress import deep, kmeans, sparse_file
from prunejax.data import handwritten_digits as digits
from prunejax.models import lenet
from prunejax.pruning.links import codebook
from prunejax.sweep import study

WIDEST = 2**8  # one program for every width of the codebooks
EVALUATED = 500  # images at a time


@functools.lru_cache(maxsize=2)
def images(root):
  """Digits of 28 x 28; scikit-learn's 8 x 8 are drawn three times as large, with a margin of two."""
  data = digits.load(root)
  if data.train_images.shape[1] == lenet.SIDE:
    return data
  wide = lambda x: np.pad(np.kron(x, np.ones((1, 3, 3), np.float32)), ((0, 0), (2, 2), (2, 2)))
  return data._replace(train_images=wide(data.train_images), test_images=wide(data.test_images))


def measure(settings, root, folder, say):
  """The metrics of a cell, see `run.plan` for its settings. Lists have one number for each layer."""
  del say
  s, data = settings, images(root)
  net = s['net']
  shared = {k: s[k] for k in ('net', 'data', 'seed', 'batch', 'learning_rate', 'decay', 'steps')}
  dense = study.kept(folder, shared, lambda: _dense(s, data))
  out = {
    'accuracy_dense': accuracy(dense, data),
    'bytes_dense': sum(leaf.nbytes for leaf in dense.values()),
  }
  shares = {
    layer: min(1.0, share * s['scale']) if s['scale'] else 1.0
    for layer, share in paper.KEPT[net].items()
  }
  pruned = study.kept(
    folder,
    shared | {k: s[k] for k in ('scale', 'rounds', 'retrain')},
    lambda: _pruned(s, data, dense, shares),
  )
  out['accuracy_pruned'] = accuracy(pruned, data)
  kernels = {layer: pruned[f'{layer}/kernel'] for layer in shares}
  out['kept'] = [float(np.mean(kernel != 0)) for kernel in kernels.values()]
  weights = sum(kernel.size for kernel in kernels.values())
  out['kept_in_all'] = sum(int((kernel != 0).sum()) for kernel in kernels.values()) / weights
  out['dead'] = [int((~(kernel != 0).any(0)).sum()) for kernel in kernels.values()]
  if not s['bits']:
    size, out['accuracy_cut'] = len(sparse_file.encode(pruned)), accuracy(cut(dense, shares), data)
    return out | {
      'bytes': size,
      'accuracy': out['accuracy_pruned'],
      'rate': out['bytes_dense'] / size,
    }
  bits = paper.BITS[net] if s['bits'] == 'paper' else dict.fromkeys(shares, s['bits'])
  books, codes, first = _shared(kernels, bits, s['init'], s['seed'])
  out['accuracy_shared'] = accuracy(pruned | first, data)
  trained = _centroids(s, data, pruned, books, codes) if s['centroids'] else pruned | first
  how = {
    'bits': {f'{layer}/kernel': b for layer, b in bits.items()},
    'index_bits': paper.INDEX_BITS,
  }
  coded, fixed = deep.encode(trained, **how), deep.encode(trained, entropy=False, **how)
  read = deep.decode(coded)
  for name, leaf in trained.items():
    assert np.array_equal(read[name], leaf), name  # the file is the network
  layers = {row['name'].split('/')[0]: row for row in deep.describe(coded) if 'bits' in row}
  plain = {row['name'].split('/')[0]: row for row in deep.describe(fixed) if 'bits' in row}
  for name in ('value_bits', 'gap_bits', 'entries', 'bytes'):
    out[f'layer_{name}'] = [layers[layer][name] for layer in shares]
  out['layer_bytes_fixed'] = [plain[layer]['bytes'] for layer in shares]
  out |= {'bytes': len(coded), 'bytes_fixed': len(fixed), 'rate': out['bytes_dense'] / len(coded)}
  return out | {'rate_fixed': out['bytes_dense'] / len(fixed), 'accuracy': accuracy(read, data)}


def accuracy(flat, data) -> float:
  """Share of the test images that are named rightly."""
  params = nested(flat)
  right = 0
  for at in range(0, len(data.test_labels), EVALUATED):
    part = slice(at, at + EVALUATED)
    right += int(
      (
        np.asarray(_logits(params, data.test_images[part])).argmax(-1) == data.test_labels[part]
      ).sum()
    )
  return right / len(data.test_labels)


def cut(flat, shares):
  """Only the greatest weights of each layer, nothing trained."""
  out = dict(flat)
  for layer, share in shares.items():
    kernel = flat[f'{layer}/kernel']
    removed = kernel.size - round(share * kernel.size)
    kept = kernel.copy().ravel()
    kept[np.argsort(np.abs(kept), kind='stable')[:removed]] = 0
    out[f'{layer}/kernel'] = kept.reshape(kernel.shape)
  return out


def nested(flat) -> dict:
  """{'fc1': {'kernel': ...}} of {'fc1/kernel': ...}."""
  out = {}
  for name, leaf in flat.items():
    layer, part = name.split('/')
    out.setdefault(layer, {})[part] = jnp.asarray(leaf)
  return out


def flat(params) -> dict:
  """The inverse of `nested`, as numpy arrays."""
  return {
    f'{layer}/{part}': np.asarray(leaf)
    for layer, parts in params.items()
    for part, leaf in parts.items()
  }


_logits = jax.jit(lenet.apply)


def _loss(params, images, labels, decay):
  entropy = optax.softmax_cross_entropy_with_integer_labels(
    lenet.apply(params, images), labels
  ).mean()
  return entropy + decay / 2 * sum(jnp.sum(layer['kernel'] ** 2) for layer in params.values())


def _chain(shares, every, rounds, rate):
  """Adam, then one link a layer: sparsity 1 - share^((r + 1) / rounds) from step r x every on."""
  links = [
    prunejax.prune_transform(
      prunejax.magnitude(),
      lambda t, share=share: 1 - share ** (jnp.minimum(t // every + 1, rounds) / rounds),
      when=lambda t: t % every == 0,
      where=f'{layer}/kernel',
    )
    for layer, share in shares.items()
  ]
  return optax.chain(optax.adam(rate), *links)


@functools.partial(jax.jit, donate_argnums=(0, 1))
def _step(params, state, images, labels, shares, every, rounds, rate, decay):
  """Sparsities, rounds and rates are data: dense training and every sparsity are one program."""
  grad = jax.grad(_loss)(params, images, labels, decay)
  updates, state = _chain(shares, every, rounds, rate).update(grad, state, params, grad=grad)
  return optax.apply_updates(params, updates), state


def _batches(data, batch, steps, seed):
  """(images, labels) of `steps` batches, each epoch in an order of its own."""
  rng, order = np.random.default_rng(seed), np.zeros(0, int)
  for _ in range(steps):
    if len(order) < batch:
      order = rng.permutation(len(data.train_labels))
    yield data.train_images[order[:batch]], data.train_labels[order[:batch]]
    order = order[batch:]


def _train(params, data, s, shares, steps, rounds, rate, seed):
  """Rates fall to a tenth of `rate` along half a cosine, anew in every round."""
  shares = {layer: jnp.float32(share) for layer, share in shares.items()}
  every = max(1, steps // rounds)
  state = _chain(shares, every, rounds, rate).init(params)
  for t, (x, y) in enumerate(_batches(data, s['batch'], steps, seed)):
    now = rate * (0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, (t % every) / every))))
    params, state = _step(params, state, x, y, shares, every, rounds, now, s['decay'])
  if not all(np.isfinite(leaf).all() for leaf in flat(params).values()):
    raise FloatingPointError('a weight is not finite')
  return flat(params)


def _dense(s, data):
  params = lenet.init(jax.random.key(s['seed']), s['net'])
  return _train(
    params,
    data,
    s,
    dict.fromkeys(paper.KEPT[s['net']], 1.0),
    s['steps'],
    1,
    s['learning_rate'],
    s['seed'],
  )


def _pruned(s, data, dense, shares):
  return _train(
    nested(dense), data, s, shares, s['retrain'], s['rounds'], s['learning_rate'], s['seed'] + 1000
  )


def _shared(kernels, bits, init, seed):
  """(codebooks {layer: [WIDEST]}, codes {layer: int32}, {path: kernel}) by k-means over each layer's kept weights."""
  books, codes, out = {}, {}, {}
  for layer, kernel in kernels.items():
    centroids, of = kmeans.fit(kernel[kernel != 0], 2 ** bits[layer] - 1, init, seed)
    books[layer] = np.pad(centroids, (0, WIDEST - len(centroids)))
    codes[layer] = codebook.codes_of(kernel, of)
    out[f'{layer}/kernel'] = np.asarray(codebook.share(books[layer], codes[layer]))
  return books, codes, out


@jax.jit
def _centroid_step(free, state, codes, images, labels, rate):
  def loss(free):
    books, biases = free
    kernels = codebook.share(books, codes)
    return _loss(
      {layer: {'kernel': kernels[layer], 'bias': biases[layer]} for layer in kernels},
      images,
      labels,
      0.0,
    )

  updates, state = optax.adam(rate).update(jax.grad(loss)(free), state)
  return optax.apply_updates(free, updates), state


def _centroids(s, data, pruned, books, codes):
  """The network after training its codebooks and biases; which weights share a value stays as it is."""
  free = (books, {layer: pruned[f'{layer}/bias'] for layer in books})
  state = optax.adam(s['centroid_rate']).init(free)
  for x, y in _batches(data, s['batch'], s['centroids'], s['seed'] + 2000):
    free, state = _centroid_step(free, state, codes, x, y, s['centroid_rate'])
  books, biases = free
  kernels = codebook.share(books, codes)
  return flat({layer: {'kernel': kernels[layer], 'bias': biases[layer]} for layer in kernels})
