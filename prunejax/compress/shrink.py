"""Cuts idle heads and inner neurons out of a pruned transformer: a smaller dense one.

Leaves are {path: numpy array} with the paths of models/bert.py, gpt2.py, llama.py or opt.py.
Without dropout, the model computes what it computed before:

* A head whose rows of the output matrix are zero is removed: nothing reads it.
* A head whose value columns are zero is removed. Softmax weights sum to one, so the head gives its
  value bias alone; that bias times its output rows is added to the output's bias.
* A neuron whose row of the output matrix is zero is removed: nothing reads it.
* A neuron whose column of the intermediate matrix is zero is removed. It gives the activation of
  its bias; that times its output row is added to the output's bias.
* Where a gate multiplies the neurons, one whose gate or intermediate column and bias are zero is
  removed: it gives zero.

Of grouped queries, a key and a value go together with all the heads that read them. What would have
to be added to a bias that a model does not have stays. Vocabulary rows and everything outside the
layers stay as they are.
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


def shrink(
  leaves: Mapping[str, np.ndarray], head_size: int, activation: str = 'gelu', group: int = 1
) -> tuple[dict[str, np.ndarray], list[int], list[int]]:
  """Removes the idle heads and inner neurons of every layer.

  Args:
    leaves: {path: float array, [in, out] or [out]}.
    head_size: numbers a head.
    activation: of the inner neurons, a name of ACTIVATIONS; it does not matter where there is a
      gate.
    group: heads that share a key and a value.

  Returns:
    The smaller leaves, the number of heads of each layer, and its number of inner neurons.

  Raises:
    ValueError: an unknown activation; an attention width that `head_size` does not divide; paths
      that are not those of such a model.
  """
  has_gate = any(name.endswith('/ffn/gate/kernel') for name in leaves)
  if activation not in ACTIVATIONS and not has_gate:
    raise ValueError(f'shrink: activation {activation!r}; known: {", ".join(ACTIVATIONS)}')
  small, heads, inner = {name: np.asarray(leaf) for name, leaf in leaves.items()}, [], []
  for layer in range(layers(leaves)):
    attention, ffn = f'encoder/layer_{layer}/attention', f'encoder/layer_{layer}/ffn'
    width = small[f'{attention}/value/kernel'].shape[1]
    if width % head_size:
      raise ValueError(
        f'shrink: {attention} is {width} wide, which heads of {head_size} do not divide'
      )
    columns = np.arange(width).reshape(-1, 1, head_size)  # [groups, 1, width of a head]
    read = np.arange(width * group).reshape(-1, group, head_size)  # what reads them
    used = _used(small, f'{attention}/value', columns, f'{attention}/output', read)
    used = used.any(axis=(1, 2))
    heads.append(int(used.sum()) * group)
    spread = np.broadcast_to(columns, read.shape)[~used]
    _fold(
      small, f'{attention}/value', spread, f'{attention}/output', read[~used], lambda bias: bias
    )
    for name, kept in (('query', read), ('key', columns), ('value', columns)):
      _keep_columns(small, f'{attention}/{name}', kept[used].ravel())
    output = f'{attention}/output/kernel'
    small[output] = small[output][read[used].ravel()]
    each = np.arange(small[f'{ffn}/intermediate/kernel'].shape[1])
    if has_gate:
      used = np.any(small[f'{ffn}/output/kernel'] != 0, axis=1)
      for name in ('gate', 'intermediate'):
        used &= _varies(small, f'{ffn}/{name}') | (_bias(small, f'{ffn}/{name}') != 0)
    else:
      used = _used(small, f'{ffn}/intermediate', each, f'{ffn}/output', each)
      removed, fn = each[~used], ACTIVATIONS[activation]
      _fold(small, f'{ffn}/intermediate', removed, f'{ffn}/output', removed, fn)
    inner.append(int(used.sum()))
    for name in ('gate', 'intermediate') if has_gate else ('intermediate',):
      _keep_columns(small, f'{ffn}/{name}', each[used])
    small[f'{ffn}/output/kernel'] = small[f'{ffn}/output/kernel'][each[used]]
  return small, heads, inner


def pad(
  leaves: Mapping[str, np.ndarray], head_size: int, heads: int, inner: int, group: int = 1
) -> dict[str, np.ndarray]:
  """Widens every layer to the same widths with zeros, for programs that know one width only.

  Args:
    leaves: {path: float array, [in, out] or [out]}.
    head_size: numbers a head.
    heads: number of heads that every layer gets.
    inner: number of inner neurons that every layer gets.
    group: heads that share a key and a value.

  Returns:
    The wider leaves. Zeros stand at the end of each axis; the model computes the same.

  Raises:
    ValueError: a layer is wider; the paths are not those of such a model.
  """
  wide = dict(leaves)
  for layer in range(layers(leaves)):
    attention, ffn = f'encoder/layer_{layer}/attention', f'encoder/layer_{layer}/ffn'
    for names, last, width in (
      (
        {'query': 1, 'key': group, 'value': group},
        f'{attention}/output',
        heads * head_size,
      ),
      ({'gate': 1, 'intermediate': 1}, f'{ffn}/output', inner),
    ):
      added = width - wide[f'{last}/kernel'].shape[0]
      if added < 0:
        raise ValueError(f'pad: {last}/kernel reads {width - added} numbers, more than {width}')
      for name, shared in names.items():
        module = f'{last.rpartition("/")[0]}/{name}'
        for leaf in (f'{module}/kernel', f'{module}/bias'):
          if leaf in wide:
            sides = [(0, 0)] * (wide[leaf].ndim - 1) + [(0, added // shared)]
            wide[leaf] = np.pad(wide[leaf], sides)
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


def _varies(leaves, name):
  """Whether each column of a matrix varies with its input."""
  return np.any(leaves[f'{name}/kernel'] != 0, axis=0)


def _bias(leaves, name):
  """The bias of a matrix; zeros where there is none."""
  kernel = leaves[f'{name}/kernel']
  return leaves.get(f'{name}/bias', np.zeros(kernel.shape[1], kernel.dtype))


def _used(leaves, before, columns, after, rows):
  """Whether `columns` of `before` matter to the `rows` of `after` that read them."""
  matters = _varies(leaves, before)
  if f'{after}/bias' not in leaves:  # which could not take a constant
    matters = matters | (_bias(leaves, before) != 0)
  return matters[columns] & np.any(leaves[f'{after}/kernel'] != 0, axis=1)[rows]


def _fold(leaves, before, columns, after, rows, fn):
  """Adds to the bias of `after` what removed columns of `before` give to its removed rows."""
  bias = leaves.get(f'{after}/bias')
  if bias is None:
    return
  constant = fn(_bias(leaves, before)[columns.ravel()].astype(np.float64))
  added = constant @ leaves[f'{after}/kernel'][rows.ravel()].astype(np.float64)
  leaves[f'{after}/bias'] = (bias.astype(np.float64) + added).astype(bias.dtype)


def _keep_columns(leaves, name, columns):
  for leaf in (f'{name}/kernel', f'{name}/bias'):
    if leaf in leaves:
      leaves[leaf] = leaves[leaf][..., columns]
