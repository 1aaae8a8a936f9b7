"""Compress one network by one family, write its file, and score what is read back.

Every network is trained for the same number of steps: a dense network for two halves; a network
that is pruned, shared or factored for a dense half and a compressed half; a small one for both
halves in its small form.
"""

import numpy as np

from experiments.classification import training
from experiments.families import subjects
from prunejax.compress import deep_compression, kmeans, sparse_file
from prunejax.pruning.links import codebook, low_rank
from prunejax.pruning.paths import matches
from prunejax.sweep import study

SOFT = (4.0, 0.7)  # temperature and weight of a teacher's soft targets
FORMS = {'small': 'full', 'distilled': 'full', 'separable': 'separable', 'squeezed': 'squeezed'}
BITS = (8, 7, 6, 5, 4, 3, 2)  # of a shared value; 2^bits - 1 values a kernel


def measure(settings: dict, root: str, folder, say) -> dict:
  """Train one cell, write its file, and score the network that is read back.

  Args:
    settings: of a cell of `study.plan`.
    root: folder that holds `mnist/`, or ''.
    folder: work directory; dense networks are kept there for other cells.
    say: unused.

  Returns:
    'accuracy' on test examples, 'loss' in nats, 'bytes' of the file, 'bytes_dense', and 'most', the
    bytes that it may have.

  Raises:
    FloatingPointError: if a weight is not finite.
    ValueError: if no member of the family is small enough.
  """
  del say
  name, family, seed = settings['net'], settings['family'], settings['seed']
  sizes = settings['train'], settings['test'], str(settings.get('reads'))
  subject = subjects.load(name, root if name != 'bert' else '', *sizes)
  model = subject.dense(seed)
  dense_bytes = subjects.size(model.params)
  most = int(dense_bytes * settings['share'])
  run = {name: settings[name] for name in ('rate', 'decay', 'batch', 'steps')}
  half = _kept(settings, folder, 'half', lambda: _fit(model, model.params, subject, 1, seed, run))
  whole = lambda: _kept(settings, folder, 'whole', lambda: _fit(model, half, subject, 2, seed, run))
  logits = model.logits
  if family == 'dense':
    file, params = sparse_file.encode(whole()), None
  elif family == 'pruned':
    file, params = _pruned(model, half, subject, most, seed, run)
  elif family == 'shared':
    file, params = _shared(model, half, subject, most, seed, run)
  elif family == 'low rank':
    file, params = _low_rank(model, half, subject, most, seed, run)
  else:
    small = subject.smaller(FORMS[family], most, seed)
    if small is None:
      raise ValueError(f'families: no {family} {name} has a file of {most} bytes or fewer')
    logits, train, soft = small.logits, subject.train, ()
    if family == 'distilled':
      taught = training.predict(model.logits, whole(), train.inputs)
      train, soft = train._replace(teacher=taught), SOFT
    params = small.params
    for part in (1, 2):
      params = _fit(small, params, subject._replace(train=train), part, seed, run, soft=soft)
    file, params = sparse_file.encode(params), None
  read = sparse_file.read_sparse.decode(file) if params is None else params
  accuracy, loss = training.score(logits, read, subject.test)
  return {
    'accuracy': accuracy,
    'loss': loss,
    'bytes': len(file),
    'bytes_dense': dense_bytes,
    'most': most if family != 'dense' else dense_bytes,
  }


def fits(name: str, family: str, share: float, root: str, train: int, test: int) -> bool:
  """Say whether a family has a member for a subject at a share of the dense bytes.

  Shared values have no file below an eleventh: for each weight it holds a code of two bits and an
  index of one, Huffman coded.
  """
  if family == 'shared':
    return share >= 1 / 11
  if family not in FORMS:
    return True
  if name == 'bert' and FORMS[family] != 'full':
    return False
  subject = subjects.load(name, root if name != 'bert' else '', train, test)
  most = int(subjects.size(subject.dense(0).params) * share)
  return subject.smaller(FORMS[family], most, 0) is not None


def _kept(settings, folder, part, make):
  """A dense network of the cell's subject, made once for all cells."""
  names = ('net', 'data', 'seed', 'steps', 'batch', 'rate', 'decay', 'train', 'reads')
  return study.kept(
    folder, {'families': part, **{name: settings.get(name) for name in names}}, make
  )


def _fit(model, params, subject, part, seed, run, **how):
  """Train for half of the steps; the second half has batches of its own."""
  return training.fit(model.logits, params, subject.train, seed=1000 * part + seed, **run, **how)


def _pruned(model, half, subject, most, seed, run):
  """Gradual magnitude pruning, at the sparsity whose file has the bytes."""
  low, high = 0, 1000
  while high - low > 1:  # The least sparsity at which the first half's network, cut, has the bytes.
    middle = (low + high) // 2
    fits = len(sparse_file.encode(_cut(half, subject, middle / 1000))) <= subjects.SLACK * most
    low, high = (low, middle) if fits else (middle, high)
  link = training.prune(subject.pruned, run['steps'] // 2, subject.together)
  params = _fit(model, half, subject, 2, seed, run, link=link, number=high / 1000)
  return sparse_file.encode(params), None


def _cut(flat, subject, sparsity):
  """The parameters without the smallest weights of all kernels together, or of each kernel."""
  chosen = _chosen(flat, subject.pruned)
  sizes = {name: np.abs(leaf).ravel() for name, leaf in chosen.items()}
  groups = [list(chosen)] if subject.together else [[name] for name in chosen]
  out = dict(flat)
  for group in groups:
    ranked = np.sort(np.concatenate([sizes[name] for name in group]))
    removed = round(sparsity * len(ranked))
    least = ranked[removed] if removed < len(ranked) else np.inf
    out |= {name: np.where(np.abs(chosen[name]) >= least, chosen[name], 0) for name in group}
  return out


def _shared(model, half, subject, most, seed, run):
  """k-means of each kernel, with as many bits as the bytes allow; then centroids are trained."""
  chosen = _chosen(half, subject.shared)
  tried = [b for b in BITS if b <= 32 * most / subjects.size(half) + 1]
  bits = next((b for b in tried if len(_coded(_share(half, chosen, b)[0], b)) <= most), None)
  if bits is None:
    raise ValueError(f'families: no file with shared values has {most} bytes or fewer')
  _, books, codes = _share(half, chosen, bits)
  params = {k: v for k, v in half.items() if k not in chosen} | {
    f'{name}/centroids': book for name, book in books.items()
  }
  trained = _fit(model, params, subject, 2, seed, run, view=_looked_up, fixed=codes)
  flat = {k: np.asarray(v) for k, v in _looked_up(trained, codes).items()}
  file = _coded(flat, bits)
  return file, deep_compression.decode(file)


def _share(flat, chosen, bits):
  """(parameters with shared values, {path: centroids}, {path: codes})."""
  out, books, codes = dict(flat), {}, {}
  for name, leaf in chosen.items():
    centroids, nearest = kmeans.fit(leaf, 2**bits - 1)
    books[name], codes[name] = centroids, nearest.astype(np.int32).reshape(leaf.shape)
    out[name] = centroids[codes[name]]
  return out, books, codes


def _coded(flat, bits):
  """A Deep Compression file; every weight is kept, so an index has the least width, one bit."""
  return deep_compression.encode(flat, bits=bits, index_bits=1)


def _looked_up(params, codes):
  """Parameters of centroids and codes."""
  rest = {k: v for k, v in params.items() if not k.endswith('/centroids')}
  return rest | {
    name: codebook.share(params[f'{name}/centroids'], code) for name, code in codes.items()
  }


def _low_rank(model, half, subject, most, seed, run):
  """The factors of each kernel's nearest matrix of a rank; then the factors are trained."""
  chosen = _chosen(half, subject.factored)
  # A file has a head beside the numbers; each pair of factors adds a tensor to it.
  numbers = lambda flat: sum(leaf.size for leaf in flat.values())
  head = subjects.size(half) - 4 * numbers(half) + 130 * len(chosen)
  low, high = 0, 1000
  while high - low > 1:  # The least sparsity whose factors have the bytes.
    middle = (low + high) // 2
    stored = sum(
      rank * sum(shape) if rank else np.prod(shape)
      for shape, rank in _ranks(chosen, middle / 1000).values()
    )
    fits = 4 * (numbers(half) - numbers(chosen) + stored) + head <= most
    low, high = (low, middle) if fits else (middle, high)
  params = _factored(half, chosen, high / 1000)
  trained = _fit(model, params, subject, 2, seed, run, view=_multiplied)
  file = sparse_file.encode(trained)
  read = _multiplied(sparse_file.read_sparse.decode(file), None)
  return file, {k: np.asarray(v) for k, v in read.items()}


def _ranks(chosen, sparsity):
  """{path: (shape, rank whose factors have the numbers of a pruned kernel)}; 0 for no factors."""
  out = {}
  for name, kernel in chosen.items():
    kept = round((1 - sparsity) * kernel.size)
    rank = max(1, kept // sum(kernel.shape))
    out[name] = kernel.shape, rank if rank * sum(kernel.shape) < kernel.size else 0
  return out


def _factored(flat, chosen, sparsity):
  """Parameters with factors in the place of the chosen kernels; at least of rank 1."""
  out = {k: v for k, v in flat.items() if k not in chosen}
  for name, (_, rank) in _ranks(chosen, sparsity).items():
    if not rank:
      out[name] = chosen[name]
      continue
    left, right = low_rank.factors(chosen[name], rank)
    out |= {f'{name}/left': left, f'{name}/right': right}
  return out


def _multiplied(params, fixed):
  """Parameters with the products of factors in their place."""
  del fixed
  out = {k: v for k, v in params.items() if not k.endswith(('/left', '/right'))}
  for name in params:
    if name.endswith('/left'):
      kernel = name.removesuffix('/left')
      out[kernel] = params[name] @ params[f'{kernel}/right']
  return out


def _chosen(flat, where):
  return {name: leaf for name, leaf in flat.items() if matches(where)(name, leaf)}
