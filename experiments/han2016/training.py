"""Train one cell: dense, pruned with retraining, weights shared, centroids trained, coded."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

import prunejax
from experiments.han2016 import own_widths, paper
from prunejax.compress import deep_compression, kmeans, sparse_file
from prunejax.data import handwritten_digits as digits
from prunejax.models import lenet
from prunejax.pruning.links import codebook
from prunejax.sweep import study

CODEBOOK_SIZE = 2**8  # One program serves every width: shorter codebooks are padded to this.
EVALUATED = 500  # images at a time
# Fractions and widths of the network's own: with a fixed slack, or with the paper's bytes.
OWN = ('own', 'fitted')


@functools.lru_cache(maxsize=2)
def images(root: str, content_read: str = '') -> digits.Digits:
  """Load digits of 28 x 28; scikit-learn's 8 x 8 are enlarged threefold and padded by 2.

  Args:
    root: folder that holds `mnist/`, or '' for scikit-learn's digits.
    content_read: tells one content of the files from another, since images are kept in memory.

  Raises:
    FileNotFoundError, ValueError: for missing or damaged files.
  """
  data = digits.load(root)
  if data.train_images.shape[1] == lenet.SIDE:
    return data
  enlarge = lambda x: np.pad(np.kron(x, np.ones((1, 3, 3), np.float32)), ((0, 0), (2, 2), (2, 2)))
  return data._replace(
    train_images=enlarge(data.train_images), test_images=enlarge(data.test_images)
  )


def measure(settings: dict, root: str, folder, say) -> dict:
  """Train one cell, write its file, and measure the network that is read back.

  Args:
    settings: of a cell of `study.plan`.
    root: folder that holds `mnist/`, or ''.
    folder: work directory; dense and pruned networks are kept there for other cells.
    say: unused.

  Returns:
    Accuracies after each stage, bytes of the dense network and of the file, and the rate. Lists
    have one number for each layer.

  Raises:
    FloatingPointError: if a weight is not finite.
  """
  del say
  data, net = images(root, str(settings.get('reads'))), settings['net']
  dense_settings = {
    k: settings[k] for k in ('net', 'data', 'seed', 'batch', 'learning_rate', 'decay', 'steps')
  }
  dense_settings['reads'] = settings.get('reads')
  dense = study.kept(folder, dense_settings, lambda: _train_dense(settings, data))
  metrics = {
    'accuracy_dense': accuracy(dense, data),
    'bytes_dense': sum(leaf.nbytes for leaf in dense.values()),
  }
  scale, own = settings['scale'], settings['bits'] in OWN
  fractions = {
    layer: min(1.0, fraction * scale) if scale else 1.0
    for layer, fraction in paper.KEPT[net].items()
  }
  if own:
    fractions = own_widths.fractions(dense, fractions, lambda flat: _train_loss(flat, data))
  pruned = study.kept(
    folder,
    dense_settings
    | {k: settings[k] for k in ('scale', 'rounds', 'retrain')}
    | ({'fractions': 'own'} if own else {}),
    lambda: _prune(settings, data, dense, fractions),
  )
  metrics['accuracy_pruned'] = accuracy(pruned, data)
  kernels = {layer: pruned[f'{layer}/kernel'] for layer in fractions}
  metrics['kept'] = [float(np.mean(kernel != 0)) for kernel in kernels.values()]
  nonzeros = sum(int((kernel != 0).sum()) for kernel in kernels.values())
  metrics['kept_in_all'] = nonzeros / sum(kernel.size for kernel in kernels.values())
  metrics['dead'] = [int((~(kernel != 0).any(0)).sum()) for kernel in kernels.values()]
  if not settings['bits']:
    size = len(sparse_file.encode(pruned, version=1))
    metrics['accuracy_cut'] = accuracy(cut(dense, fractions), data)
    return metrics | {
      'bytes': size,
      'accuracy': metrics['accuracy_pruned'],
      'rate': metrics['bytes_dense'] / size,
    }
  if own:
    sensitivities = own_widths.losses(pruned, kernels, lambda flat: accuracy(flat, _first(data)))
    bits = own_widths.bits(sensitivities)
    if settings['bits'] == 'fitted':
      most = int(metrics['bytes_dense'] / paper.DEEP[net][2])
      bits = own_widths.fitted_bits(pruned, kernels, sensitivities, most)
  elif settings['bits'] == 'paper':
    bits = paper.BITS[net]
  else:
    bits = dict.fromkeys(kernels, settings['bits'])
  books, codes, shared_kernels = _share(kernels, bits, settings['init'], settings['seed'])
  shared = pruned | shared_kernels
  metrics['accuracy_shared'] = accuracy(shared, data)
  if settings['centroids']:
    shared = _train_centroids(settings, data, pruned, books, codes)
  coding = {
    'bits': {f'{layer}/kernel': width for layer, width in bits.items()},
    'index_bits': own_widths.index_bits(shared, bits) if own else paper.INDEX_BITS,
  }
  coded = deep_compression.encode(shared, **coding)
  fixed = deep_compression.encode(shared, entropy=False, **coding)
  decoded = deep_compression.decode(coded)
  for name, leaf in shared.items():
    assert np.array_equal(decoded[name], leaf), name  # The file holds the network exactly.
  coded_layers, fixed_layers = _by_layer(coded), _by_layer(fixed)
  for name in ('value_bits', 'gap_bits', 'entries', 'bytes'):
    metrics[f'layer_{name}'] = [coded_layers[layer][name] for layer in fractions]
  metrics['layer_bytes_fixed'] = [fixed_layers[layer]['bytes'] for layer in fractions]
  if own:
    for name in ('bits', 'index_bits'):
      metrics[f'layer_{name}'] = [coded_layers[layer][name] for layer in fractions]
    at_papers = {f'{layer}/kernel': width for layer, width in paper.BITS[net].items()}
    metrics['bytes_at_papers_widths'] = len(
      deep_compression.encode(pruned, bits=at_papers, index_bits=paper.INDEX_BITS)
    )
  return metrics | {
    'bytes': len(coded),
    'bytes_fixed': len(fixed),
    'rate': metrics['bytes_dense'] / len(coded),
    'rate_fixed': metrics['bytes_dense'] / len(fixed),
    'accuracy': accuracy(decoded, data),
  }


def accuracy(flat: dict, data: digits.Digits) -> float:
  """Compute the share of test images that are classified rightly."""
  params = nested(flat)
  right = 0
  for start in range(0, len(data.test_labels), EVALUATED):
    part = slice(start, start + EVALUATED)
    classes = np.asarray(_logits(params, data.test_images[part])).argmax(-1)
    right += int((classes == data.test_labels[part]).sum())
  return right / len(data.test_labels)


def _first(data):
  """The first training images in the place of test images: own widths are chosen by them."""
  return data._replace(
    test_images=data.train_images[: own_widths.JUDGED],
    test_labels=data.train_labels[: own_widths.JUDGED],
  )


def _train_loss(flat, data):
  """Mean cross-entropy of the first training images, in nats."""
  part, params = _first(data), nested(flat)
  losses = []
  for start in range(0, len(part.test_labels), EVALUATED):
    rows = slice(start, start + EVALUATED)
    out = _logits(params, part.test_images[rows])
    entropy = optax.softmax_cross_entropy_with_integer_labels(out, part.test_labels[rows])
    losses.append(np.asarray(entropy))
  return float(np.concatenate(losses).mean())


def cut(flat: dict, fractions: dict) -> dict:
  """Keep the largest weights of each layer and retrain nothing.

  Args:
    flat: {path: array}.
    fractions: {layer: fraction of the weights that is kept}.
  """
  out = dict(flat)
  for layer, fraction in fractions.items():
    kernel = flat[f'{layer}/kernel']
    removed = kernel.size - round(fraction * kernel.size)
    weights = kernel.copy().ravel()
    weights[np.argsort(np.abs(weights), kind='stable')[:removed]] = 0
    out[f'{layer}/kernel'] = weights.reshape(kernel.shape)
  return out


def nested(flat: dict) -> dict:
  """Turn {'fc1/kernel': array} into {'fc1': {'kernel': array}}."""
  params = {}
  for name, leaf in flat.items():
    layer, part = name.split('/')
    params.setdefault(layer, {})[part] = jnp.asarray(leaf)
  return params


def flatten(params: dict) -> dict:
  """Invert `nested`, as numpy arrays."""
  return {
    f'{layer}/{part}': np.asarray(leaf)
    for layer, parts in params.items()
    for part, leaf in parts.items()
  }


_logits = jax.jit(lenet.apply)


def _by_layer(file):
  """{layer: what `deep.describe` says of its kernel}."""
  return {
    row['name'].split('/')[0]: row for row in deep_compression.describe(file) if 'bits' in row
  }


def _loss(params, images, labels, decay):
  entropy = optax.softmax_cross_entropy_with_integer_labels(
    lenet.apply(params, images), labels
  ).mean()
  return entropy + decay / 2 * sum(jnp.sum(layer['kernel'] ** 2) for layer in params.values())


def _chain(fractions, every, rounds, rate):
  """Adam, then one link a layer: sparsity 1 - fraction^((r + 1) / rounds) in round r."""
  links = [
    prunejax.prune_transform(
      prunejax.magnitude(),
      lambda t, kept=kept: 1 - kept ** (jnp.minimum(t // every + 1, rounds) / rounds),
      when=lambda t: t % every == 0,
      where=f'{layer}/kernel',
    )
    for layer, kept in fractions.items()
  ]
  return optax.chain(optax.adam(rate), *links)


@functools.partial(jax.jit, donate_argnums=(0, 1))
def _step(params, state, images, labels, fractions, every, rounds, rate, decay):
  """One step; fractions, rounds and rates are arguments, so one program serves every sparsity."""
  grad = jax.grad(_loss)(params, images, labels, decay)
  updates, state = _chain(fractions, every, rounds, rate).update(grad, state, params, grad=grad)
  return optax.apply_updates(params, updates), state


def _batches(data, batch, steps, seed):
  """(images, labels) of `steps` batches; each epoch has an order of its own."""
  rng, order = np.random.default_rng(seed), np.zeros(0, int)
  for _ in range(steps):
    if len(order) < batch:
      order = rng.permutation(len(data.train_labels))
    yield data.train_images[order[:batch]], data.train_labels[order[:batch]]
    order = order[batch:]


def _train(params, data, settings, fractions, steps, rounds, rate, seed):
  """Train; in every round the rate falls from `rate` to a tenth along half a cosine."""
  fractions = {layer: jnp.float32(fraction) for layer, fraction in fractions.items()}
  every = max(1, steps // rounds)
  state = _chain(fractions, every, rounds, rate).init(params)
  for t, (images, labels) in enumerate(_batches(data, settings['batch'], steps, seed)):
    now = rate * (0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, (t % every) / every))))
    params, state = _step(
      params, state, images, labels, fractions, every, rounds, now, settings['decay']
    )
  if not all(np.isfinite(leaf).all() for leaf in flatten(params).values()):
    raise FloatingPointError('a weight is not finite')
  return flatten(params)


def _train_dense(settings, data):
  params = lenet.init(jax.random.key(settings['seed']), settings['net'])
  fractions = dict.fromkeys(paper.KEPT[settings['net']], 1.0)
  rate, seed = settings['learning_rate'], settings['seed']
  return _train(params, data, settings, fractions, settings['steps'], 1, rate, seed)


def _prune(settings, data, dense, fractions):
  steps, rounds = settings['retrain'], settings['rounds']
  rate, seed = settings['learning_rate'], settings['seed'] + 1000
  return _train(nested(dense), data, settings, fractions, steps, rounds, rate, seed)


def _share(kernels, bits, init, seed):
  """Share each layer's kept weights by k-means.

  Returns:
    Codebooks {layer: [CODEBOOK_SIZE]}, codes {layer: int32}, and {path: shared kernel}.
  """
  books, codes, shared = {}, {}, {}
  for layer, kernel in kernels.items():
    centroids, nearest = kmeans.fit(kernel[kernel != 0], 2 ** bits[layer] - 1, init, seed)
    books[layer] = np.pad(centroids, (0, CODEBOOK_SIZE - len(centroids)))
    codes[layer] = codebook.codes_of(kernel, nearest)
    shared[f'{layer}/kernel'] = np.asarray(codebook.share(books[layer], codes[layer]))
  return books, codes, shared


@jax.jit
def _centroid_step(trained, state, codes, images, labels, rate):
  def loss(trained):
    books, biases = trained
    kernels = codebook.share(books, codes)
    params = {layer: {'kernel': kernels[layer], 'bias': biases[layer]} for layer in kernels}
    return _loss(params, images, labels, 0.0)

  updates, state = optax.adam(rate).update(jax.grad(loss)(trained), state)
  return optax.apply_updates(trained, updates), state


def _train_centroids(settings, data, pruned, books, codes):
  """Train codebooks and biases; the codes stay, and so does which weights share a value."""
  rate, seed = settings['centroid_rate'], settings['seed'] + 2000
  trained = (books, {layer: pruned[f'{layer}/bias'] for layer in books})
  state = optax.adam(rate).init(trained)
  for images, labels in _batches(data, settings['batch'], settings['centroids'], seed):
    trained, state = _centroid_step(trained, state, codes, images, labels, rate)
  books, biases = trained
  kernels = codebook.share(books, codes)
  return flatten({layer: {'kernel': kernels[layer], 'bias': biases[layer]} for layer in kernels})
