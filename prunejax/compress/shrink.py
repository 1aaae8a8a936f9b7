"""A pruned BERT as a smaller dense one: heads and inner neurons that do not matter to the output are cut out.

Works on {path: numpy array} with the paths of models/bert.py; what the model computes stays (without dropout):

* a head goes whose rows of the output matrix are zero, whatever its biases, since nothing of it is read;
* a head goes whose value columns are zero: softmax weights sum to one, so it gives its value bias alone, and that
  times its output rows is added to the output's bias;
* a neuron goes whose row of the output matrix is zero, or whose column of intermediate is zero: it gives the
  activation of its bias, and that times its row is added to the output's bias.

Vocabulary rows and everything outside the layers stay as they are.
"""

import math
import re

import numpy as np

ACTIVATIONS = {
  'relu': lambda x: np.maximum(x, 0),
  'gelu': lambda x: x * 0.5 * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2))),
  'gelu_new': lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}
INWARD = ('attention/query', 'attention/key', 'attention/value')


def shrink(leaves, head_size, activation='gelu'):
  """(smaller leaves, heads of each layer, inner widths of each layer) of {path: float array [in, out] or [out]}.

  Raises ValueError for an activation whose value at a removed neuron's bias is not known here, and for widths that
  `head_size` does not divide.
  """
  if activation not in ACTIVATIONS:
    raise ValueError(f'shrink: activation {activation!r}; known: {", ".join(ACTIVATIONS)}')
  out, heads, inner = {name: np.asarray(leaf) for name, leaf in leaves.items()}, [], []
  for layer in range(layers(leaves)):
    at = f'encoder/layer_{layer}'
    width = out[f'{at}/attention/value/kernel'].shape[1]
    if width % head_size:
      raise ValueError(
        f'shrink: {at}/attention is {width} wide, which heads of {head_size} do not divide'
      )
    slots = np.arange(width).reshape(-1, head_size)
    alive = (
      _alive(out, f'{at}/attention/value', f'{at}/attention/output')[slots].any(1)
      if width
      else np.zeros(0, bool)
    )
    heads.append(int(alive.sum()))
    _fold(
      out,
      f'{at}/attention/value',
      f'{at}/attention/output',
      slots[~alive].ravel(),
      lambda bias: bias,
    )
    for name in INWARD:
      _cut(out, f'{at}/{name}', slots[alive].ravel())
    out[f'{at}/attention/output/kernel'] = out[f'{at}/attention/output/kernel'][
      slots[alive].ravel()
    ]
    alive = _alive(out, f'{at}/ffn/intermediate', f'{at}/ffn/output')
    inner.append(int(alive.sum()))
    _fold(
      out,
      f'{at}/ffn/intermediate',
      f'{at}/ffn/output',
      np.flatnonzero(~alive),
      ACTIVATIONS[activation],
    )
    _cut(out, f'{at}/ffn/intermediate', np.flatnonzero(alive))
    out[f'{at}/ffn/output/kernel'] = out[f'{at}/ffn/output/kernel'][alive]
  return out, heads, inner


def pad(leaves, head_size, heads, inner):
  """The same model with `heads` heads and `inner` neurons in every layer: zeros are added at the end of each axis.

  What other programs can read, which know one width for all layers. Raises ValueError for a layer that is wider.
  """
  out = dict(leaves)
  for layer in range(layers(leaves)):
    at = f'encoder/layer_{layer}'
    for names, last, width in (
      ([f'{at}/{name}' for name in INWARD], f'{at}/attention/output', heads * head_size),
      ([f'{at}/ffn/intermediate'], f'{at}/ffn/output', inner),
    ):
      more = width - out[f'{last}/kernel'].shape[0]
      if more < 0:
        raise ValueError(f'pad: {last}/kernel reads {width - more} numbers, more than {width}')
      for name in names:
        out[f'{name}/kernel'] = np.pad(out[f'{name}/kernel'], ((0, 0), (0, more)))
        out[f'{name}/bias'] = np.pad(out[f'{name}/bias'], (0, more))
      out[f'{last}/kernel'] = np.pad(out[f'{last}/kernel'], ((0, more), (0, 0)))
  return out


def layers(leaves) -> int:
  """How many layers the paths name. Raises ValueError where they are not those of a BERT."""
  found = {
    int(m[1])
    for name in leaves
    if (m := re.match(r'encoder/layer_(\d+)/attention/value/kernel$', name))
  }
  if not found or found != set(range(len(found))):
    raise ValueError(f'shrink: no layers encoder/layer_0, 1, ... among {sorted(leaves)[:4]}')
  return len(found)


def _alive(leaves, before, after):
  """[width] True where something comes in that varies, and something of it goes out."""
  return np.any(leaves[f'{before}/kernel'] != 0, axis=0) & np.any(
    leaves[f'{after}/kernel'] != 0, axis=1
  )


def _fold(leaves, before, after, gone, fn):
  """Adds to the bias after what the removed places always gave."""
  constant = fn(leaves[f'{before}/bias'][gone].astype(np.float64))
  added = constant @ leaves[f'{after}/kernel'][gone].astype(np.float64)
  bias = leaves[f'{after}/bias']
  leaves[f'{after}/bias'] = (bias.astype(np.float64) + added).astype(bias.dtype)


def _cut(leaves, name, places):
  leaves[f'{name}/kernel'], leaves[f'{name}/bias'] = (
    leaves[f'{name}/kernel'][:, places],
    leaves[f'{name}/bias'][places],
  )
