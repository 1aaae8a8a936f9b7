"""Moves the calibration through the blocks, a batch of hidden states at a time."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prunejax.models.hf import stored
from prunejax.oneshot import decoder, segments
from prunejax.pruning.paths import named_leaves


def on_one_device(tree: Any) -> Any:
  """Copies replicated arrays to one device, so that one program decides for every mesh."""
  return jax.tree.map(lambda x: jnp.asarray(np.asarray(x.addressable_data(0))), tree)


class Stream:
  """Batches of hidden states on the devices.

  Attributes:
    batch: segments of a batch.
    mesh: see `block_by_block.prune`.
    count: segments of the calibration.
    parts: the first segment of each batch.
  """

  def __init__(self, model, params, calibration, batch, mesh):
    count = count_segments(calibration)
    devices = 1 if mesh is None else mesh.shape[segments.AXIS]
    self.batch = max(min(batch, segments.power_of_two(count)), devices)
    self.mesh, self.count = mesh, count
    self._calibration = calibration
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), calibration)
    self._embed, self._outer = decoder.embedding(model, params, one)
    # The shapes of the hidden states of one segment.
    self.like = jax.eval_shape(self._embed, [*map(decoder.abstract, self._outer)], one)
    self.parts = list(range(0, count, self.batch))

  def valid(self, start):
    """True for the segments of a batch, False for its padding."""
    return np.arange(start, start + self.batch) < self.count

  def placed(self, batches):
    """Batches on the devices."""
    return [segments.place(batch, self.mesh) for batch in batches]

  def embedded(self):
    """The hidden states in front of the first block."""
    outer = [jnp.asarray(stored.whole(leaf)) for leaf in self._outer]  # held here and no longer

    def padded(x, start):
      part = np.asarray(x[start : start + self.batch])
      more = self.batch - len(part)
      return np.concatenate([part, np.repeat(part[:1], more, 0)]) if more else part

    batches = []
    for start in self.parts:
      part = jax.tree.map(lambda x, start=start: padded(x, start), self._calibration)
      # One segment at a time: every segment is embedded by one program on every mesh.
      rows = [
        self._embed(outer, jax.tree.map(lambda x, i=i: x[i : i + 1], part))
        for i in range(self.batch)
      ]
      whole = jax.tree.map(lambda *xs: np.concatenate([np.asarray(x) for x in xs]), *rows)
      batches.append(segments.place(whole, self.mesh))
    return batches

  def advanced(self, advance, weights, hidden, batches=None):
    """The hidden states behind a block; those in front of it are given up batch by batch.

    `batches`: how many batches go on; None for all.
    """
    weights = jax.tree.map(jnp.asarray, weights)
    for number, start in enumerate(self.parts[:batches]):
      hidden[number] = advance(weights, hidden[number], self.valid(start))
    return hidden

  def summed(self, collect, weights, hidden):
    """Statistics of all batches, added in their order."""
    total, weights = None, jax.tree.map(jnp.asarray, weights)
    for number, start in enumerate(self.parts):
      part = collect(weights, hidden[number], self.valid(start))
      total = part if total is None else jax.tree.map(jnp.add, total, part)
    return total

  def segment(self, hidden, i):
    """Segment i, on one device."""
    batch, at = hidden[i // self.batch], i % self.batch
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x[at : at + 1])), batch)

  def change(self, change, weights, first, hidden):
    """The change of what a block puts out, relative to what it adds, of the first segment.

    `first` is that segment in front of the block, and `hidden` are the states behind it.
    """
    weights = jax.tree.map(jnp.asarray, weights)
    return float(change(weights, first, self.segment(hidden, 0)))


def joined(batches: Any) -> Any:
  """Returns the calibration as one pytree of numpy arrays [segments, ...].

  Raises:
    ValueError: there is none; batches or arrays that do not fit each other.
  """
  if batches is None:
    raise ValueError(
      'prune: give calibration segments; a criterion that reads weights alone needs one too, for'
      ' its shape'
    )
  if isinstance(batches, list):
    if not batches:
      raise ValueError('prune: the list of calibration batches is empty')
    try:
      whole = jax.tree.map(lambda *xs: np.concatenate([np.asarray(x) for x in xs]), *batches)
    except ValueError as error:
      raise ValueError(f'prune: the calibration batches are not alike: {error}') from None
  else:
    whole = jax.tree.map(np.asarray, batches)
  count_segments(whole)
  return whole


def count_segments(calibration: Any) -> int:
  """Returns the number of segments.

  Raises:
    ValueError: arrays that differ in it, or have none.
  """
  counts = {len(x) if np.ndim(x) else 0 for x in jax.tree.leaves(calibration)}
  if len(counts) != 1 or 0 in counts:
    raise ValueError(
      f'prune: the arrays of the calibration have {sorted(counts)} segments on axis 0: expected the'
      ' same number of all, at least 1'
    )
  return counts.pop()


def digest_of(calibration: Any) -> str:
  """Returns what identifies the calibration by its content."""
  digest = hashlib.sha256()
  for name, x in named_leaves(calibration).items():
    digest.update(f'{name}:{x.shape}:{x.dtype}'.encode())
    digest.update(np.ascontiguousarray(x).tobytes())
  return digest.hexdigest()[:16]
