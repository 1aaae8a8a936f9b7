"""Cuts idle heads and inner neurons out of a pruned BERT or GPT-2: a smaller dense one.

Leaves are {path: numpy array} with the paths of models/bert.py or models/gpt2.py. Without dropout,
the model computes what it computed before:

* A head whose rows of the output matrix are zero is removed: nothing reads it.
* A head whose value columns are zero is removed. Softmax weights sum to one, so the head gives its
  value bias alone; that bias times its output rows is added to the output's bias.
* A neuron whose row of the output matrix is zero is removed: nothing reads it.
* A neuron whose column of the intermediate matrix is zero is removed. It gives the activation of
  its bias; that times its output row is added to the output's bias.

Vocabulary rows and everything outside the layers stay as they are.
"""

import math
import re
from collections.abc import Mapping

import numpy as np

ACTIVATIONS = {
  'relu': lambda x: np.maximum(x, 0),
  'gelu': lambda x: x * 0.5 * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2))),
  'gelu_new': lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}
INWARD = ('query', 'key', 'value')  # matrices of attention that read the hidden state


def shrink(
  leaves: Mapping[str, np.ndarray], head_size: int, activation: str = 'gelu'
) -> tuple[dict[str, np.ndarray], list[int], list[int]]:
  """Removes the idle heads and inner neurons of every layer.

  Args:
    leaves: {path: float array, [in, out] or [out]}.
    head_size: numbers a head.
    activation: of the inner neurons, a name of ACTIVATIONS.

  Returns:
    The smaller leaves, the number of heads of each layer, and its number of inner neurons.

  Raises:
    ValueError: an unknown activation; an attention width that `head_size` does not divide; paths
      that are not those of such a model.
  """
  if activation not in ACTIVATIONS:
    raise ValueError(f'shrink: activation {activation!r}; known: {", ".join(ACTIVATIONS)}')
  small, heads, inner = {name: np.asarray(leaf) for name, leaf in leaves.items()}, [], []
  for layer in range(layers(leaves)):
    attention, ffn = f'encoder/layer_{layer}/attention', f'encoder/layer_{layer}/ffn'
    width = small[f'{attention}/value/kernel'].shape[1]
    if width % head_size:
      raise ValueError(
        f'shrink: {attention} is {width} wide, which heads of {head_size} do not divide'
      )
    columns = np.arange(width).reshape(-1, head_size)  # of each head
    if width:
      used = _used(small, f'{attention}/value', f'{attention}/output')[columns].any(1)
    else:
      used = np.zeros(0, bool)
    kept, removed = columns[used].ravel(), columns[~used].ravel()
    heads.append(int(used.sum()))
    _fold(small, f'{attention}/value', f'{attention}/output', removed, lambda bias: bias)
    for name in INWARD:
      _keep_columns(small, f'{attention}/{name}', kept)
    small[f'{attention}/output/kernel'] = small[f'{attention}/output/kernel'][kept]
    used = _used(small, f'{ffn}/intermediate', f'{ffn}/output')
    kept, removed = np.flatnonzero(used), np.flatnonzero(~used)
    inner.append(int(used.sum()))
    _fold(small, f'{ffn}/intermediate', f'{ffn}/output', removed, ACTIVATIONS[activation])
    _keep_columns(small, f'{ffn}/intermediate', kept)
    small[f'{ffn}/output/kernel'] = small[f'{ffn}/output/kernel'][kept]
  return small, heads, inner


def pad(
  leaves: Mapping[str, np.ndarray], head_size: int, heads: int, inner: int
) -> dict[str, np.ndarray]:
  """Widens every layer to the same widths with zeros, for programs that know one width only.

  Args:
    leaves: {path: float array, [in, out] or [out]}.
    head_size: numbers a head.
    heads: number of heads that every layer gets.
    inner: number of inner neurons that every layer gets.

  Returns:
    The wider leaves. Zeros stand at the end of each axis; the model computes the same.

  Raises:
    ValueError: a layer is wider; the paths are not those of such a model.
  """
  wide = dict(leaves)
  for layer in range(layers(leaves)):
    attention, ffn = f'encoder/layer_{layer}/attention', f'encoder/layer_{layer}/ffn'
    for names, last, width in (
      ([f'{attention}/{name}' for name in INWARD], f'{attention}/output', heads * head_size),
      ([f'{ffn}/intermediate'], f'{ffn}/output', inner),
    ):
      added = width - wide[f'{last}/kernel'].shape[0]
      if added < 0:
        raise ValueError(f'pad: {last}/kernel reads {width - added} numbers, more than {width}')
      for name in names:
        wide[f'{name}/kernel'] = np.pad(wide[f'{name}/kernel'], ((0, 0), (0, added)))
        wide[f'{name}/bias'] = np.pad(wide[f'{name}/bias'], (0, added))
      wide[f'{last}/kernel'] = np.pad(wide[f'{last}/kernel'], ((0, added), (0, 0)))
  return wide


def layers(leaves: Mapping[str, np.ndarray]) -> int:
  """Counts the layers that the paths name.

  Args:
    leaves: {path: array}.

  Returns:
    The number of layers.

  Raises:
    ValueError: the paths are not those of such a model.
  """
  value_kernel = r'encoder/layer_(\d+)/attention/value/kernel$'
  numbers = {int(match[1]) for name in leaves if (match := re.match(value_kernel, name))}
  if not numbers or numbers != set(range(len(numbers))):
    raise ValueError(f'shrink: no layers encoder/layer_0, 1, ... among {sorted(leaves)[:4]}')
  return len(numbers)


def _used(leaves, before, after):
  """Whether each column of `before` varies with its input and a row of `after` reads it."""
  varies = np.any(leaves[f'{before}/kernel'] != 0, axis=0)
  return varies & np.any(leaves[f'{after}/kernel'] != 0, axis=1)


def _fold(leaves, before, after, removed, fn):
  """Adds the constant output of the removed columns of `before` to the bias of `after`."""
  constant = fn(leaves[f'{before}/bias'][removed].astype(np.float64))
  added = constant @ leaves[f'{after}/kernel'][removed].astype(np.float64)
  bias = leaves[f'{after}/bias']
  leaves[f'{after}/bias'] = (bias.astype(np.float64) + added).astype(bias.dtype)


def _keep_columns(leaves, name, columns):
  leaves[f'{name}/kernel'] = leaves[f'{name}/kernel'][:, columns]
  leaves[f'{name}/bias'] = leaves[f'{name}/bias'][columns]
