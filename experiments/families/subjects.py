"""What is compressed: LeNet-5 and a VGG-like network on digits, and the packaged BERT on a task.

Parameters are flat here: {path: array}.
"""

import functools
import json
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from experiments.classification import training
from experiments.classification.training import Examples
from experiments.transfer import halves
from prunejax.compress import sparse_file
from prunejax.data import finetuning, tasks, wordpiece
from prunejax.data import handwritten_digits as digits
from prunejax.models import bert, convnets
from prunejax.models.hf import bert as bert_hf
from prunejax.pruning.paths import named_leaves
from prunejax.train import families, inputs

NAMES = {'lenet-5': 'LeNet-5', 'vgg': 'VGG-like', 'bert': 'packaged BERT'}
TASK, LENGTH = 'prose/order', 32  # of BERT: a task of the packaged text, and tokens of an example
HEAD_SIZE = 32  # numbers of an attention head of the packaged BERT
SLACK = 0.99  # of the bytes of a pruned file; masks move in training, and so does its size


class Model(NamedTuple):
  """A network to train.

  Attributes:
    logits: (flat parameters, inputs) -> logits [n, classes].
    params: {path: array} where training starts.
  """

  logits: Callable
  params: dict


class Subject(NamedTuple):
  """A network with its data.

  Attributes:
    train, test: `Examples`.
    dense: seed -> `Model`.
    smaller: (form, bytes, seed) -> `Model` whose file has at most so many bytes, or None.
    pruned: regex of the kernels that are pruned.
    shared: regex of the kernels whose values are shared.
    factored: regex of the kernels that get a low rank.
    together: whether one threshold prunes all kernels.
  """

  train: Examples
  test: Examples
  dense: Callable
  smaller: Callable
  pruned: str
  shared: str
  factored: str
  together: bool


def load(name: str, root: str, train: int, test: int, content_read: str = '') -> Subject:
  """Read a subject.

  Args:
    name: of `NAMES`.
    root: folder that holds `mnist/`, or '' for scikit-learn's digits; BERT reads the package alone.
    train, test: most examples of each set.
    content_read: tells one content of the files from another, since data are kept in memory.

  Raises:
    FileNotFoundError, ValueError: for missing or damaged files.
  """
  if name == 'bert':
    return _bert(train, test)
  return _images(name, root, train, test, content_read)


def nested(flat: dict) -> dict:
  """Turn {'conv1/kernel': array} into {'conv1': {'kernel': array}}, at any depth."""
  tree = {}
  for name, leaf in flat.items():
    *above, last = name.split('/')
    node = tree
    for part in above:
      node = node.setdefault(part, {})
    node[last] = leaf
  return tree


def size(params: dict) -> int:
  """Count the bytes of the file of a dense network of these shapes."""
  return len(sparse_file.encode({k: np.ones(np.shape(v), np.float32) for k, v in params.items()}))


@functools.lru_cache(maxsize=4)
def _images(name, root, train, test, content_read):
  del content_read
  data = digits.load(root)
  shape = _enlarged if name == 'lenet-5' else halves.small
  parts = [
    Examples(shape(images[:most]), labels[:most])
    for images, labels, most in (
      (data.train_images, data.train_labels, train),
      (data.test_images, data.test_labels, test),
    )
  ]
  network = convnets.Network(name, parts[0].inputs.shape[1])

  def make(network, seed):
    params = convnets.init(jax.random.key(seed), network)
    return Model(_flat_logits(training.logits_of(network)), jax.device_get(named_leaves(params)))

  def smaller(form, most, seed):
    # The largest width in steps of a hundredth whose file fits.
    low, high = 0, 10_000
    while high - low > 1:
      middle = (low + high) // 2
      wide = network._replace(form=form, width=middle / 100)
      numbers = sum(rows * columns for rows, columns in convnets.shapes(wide).values())
      fits = 4 * numbers <= most and _most_bytes(wide) <= most
      low, high = (middle, high) if fits else (low, middle)
    return make(network._replace(form=form, width=low / 100), seed) if low else None

  return Subject(
    *parts,
    dense=functools.partial(make, network),
    smaller=smaller,
    pruned=r'.*/kernel',
    shared=r'.*/kernel',
    factored=r'(conv[2-9]|fc\d)/kernel',
    together=True,
  )


def _most_bytes(network):
  """The bytes of the file of a network, whether or not its biases are zero."""
  shapes = convnets.shapes(network).items()
  kernels = {f'{layer}/kernel': np.ones(shape, np.float32) for layer, shape in shapes}
  biases = {f'{layer}/bias': np.ones(shape[1], np.float32) for layer, shape in shapes}
  some_zero = {name: np.arange(len(bias), dtype=np.float32) % 2 for name, bias in biases.items()}
  zero = {name: 0 * bias for name, bias in biases.items()}
  return max(len(sparse_file.encode({**kernels, **b})) for b in (biases, some_zero, zero))


def _enlarged(images):
  """Images of 28 x 28; scikit-learn's 8 x 8 are enlarged threefold and padded by 2."""
  if images.shape[1] == 28:
    return images
  return np.pad(np.kron(images, np.ones((1, 3, 3), np.float32)), ((0, 0), (2, 2), (2, 2)))


@functools.lru_cache(maxsize=1)
def _bert(train, test):
  tokenizer = wordpiece.load(inputs.NANO)
  parts = []
  for split, most in (('train', train), ('validation', test)):
    rows = finetuning.encode(tasks.load(TASK, split), tokenizer, LENGTH)
    label = np.asarray(rows.pop('label'), np.int32)[:most]
    parts.append(Examples({k: v[:most] for k, v in rows.items()}, label))
  params, config = bert_hf.load(inputs.NANO, heads=())
  packaged = {name: np.asarray(leaf) for name, leaf in named_leaves(params).items()}

  def make(leaves, heads, inner, seed):
    fields = json.loads(json.dumps(config.to_dict(), default=str))
    fields |= {'heads_per_layer': heads, 'intermediate_per_layer': inner}
    fields |= {'num_hidden_layers': len(heads)}
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=(config.hidden_size, 2)) / np.sqrt(config.hidden_size)
    head = {'classifier/kernel': np.float32(drawn), 'classifier/bias': np.zeros(2, np.float32)}
    return Model(_bert_logits(json.dumps(fields, sort_keys=True)), {**leaves, **head})

  def smaller(form, most, seed):
    leaves = {k: v for k, v in packaged.items() if not k.startswith('encoder/layer_1/')}
    for heads in (4, 3, 2, 1):
      # 32 bytes are for the digits of the shapes in the head of the file.
      room = most - 32 - size(make(_narrower(leaves, heads, 0), [heads], [0], 0).params)
      inner = room // (4 * (2 * config.hidden_size + 1))
      if inner >= HEAD_SIZE * heads:
        inner = min(inner, config.intermediate_size)
        return make(_narrower(leaves, heads, inner), [heads], [inner], seed)
    return None

  everything = [config.num_attention_heads] * 2, [config.intermediate_size] * 2
  return Subject(
    *parts,
    dense=lambda seed: make(packaged, *everything, seed),
    smaller=smaller,
    pruned=bert.PRUNABLE,
    shared=rf'{bert.PRUNABLE}|embeddings/(position|segment)/embedding|classifier/kernel',
    factored=bert.PRUNABLE,
    together=False,
  )


def _narrower(leaves, heads, inner):
  """One layer with its `heads` and `inner` neurons of the largest output weights."""
  out, attention, ffn = dict(leaves), 'encoder/layer_0/attention', 'encoder/layer_0/ffn'
  rows = np.abs(leaves[f'{attention}/output/kernel']).sum(1).reshape(-1, HEAD_SIZE)
  best = np.sort(np.argsort(-rows.sum(1), kind='stable')[:heads])
  columns = (best[:, None] * HEAD_SIZE + np.arange(HEAD_SIZE)).ravel()
  neurons = np.abs(leaves[f'{ffn}/output/kernel']).sum(1)
  neurons = np.sort(np.argsort(-neurons, kind='stable')[:inner])
  for module, kept in (
    (f'{attention}/query', columns),
    (f'{attention}/key', columns),
    (f'{attention}/value', columns),
    (f'{ffn}/intermediate', neurons),
  ):
    for leaf in (f'{module}/kernel', f'{module}/bias'):
      out[leaf] = leaves[leaf][..., kept]
  out[f'{attention}/output/kernel'] = leaves[f'{attention}/output/kernel'][columns]
  out[f'{ffn}/output/kernel'] = leaves[f'{ffn}/output/kernel'][neurons]
  return out


@functools.cache
def _flat_logits(logits):
  return lambda flat, images: logits(nested(flat), images)


@functools.cache
def _bert_logits(fields):
  module = families.make(fields, ('classifier',), 2)

  def logits(flat, rows):
    texts = rows['input_ids'], rows['segment_ids'], rows['valid']
    out = module.apply({'params': nested(flat)}, *texts, deterministic=True)
    return out['classifier']

  return logits
