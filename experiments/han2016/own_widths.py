"""What a network has of its own: kept fractions, widths of codes and widths of indices of a layer.

All are chosen by training images; test images play no part.
"""

import numpy as np

from prunejax.compress import deep_compression, kmeans

JUDGED = 5000  # training images, the first ones
FRACTIONS = tuple(2 ** (-step / 2) for step in range(13))  # from 1 to 1/64
BITS = (2, 3, 4, 5, 6, 7, 8)
INDEX_BITS = (3, 4, 5, 6, 7, 8)
SLACK = 0.001  # of the accuracy on training images, that one layer with shared values may lose
SLACKS = (0.0, 0.0001, 0.0002, 0.0004, 0.0006, 0.001, 0.002, 0.004)  # the most careful first


def fractions(flat: dict, papers: dict, loss) -> dict:
  """Choose the kept fraction of each layer by its sensitivity (NIPS 2015, section 3).

  A layer's sensitivity is the loss when it alone is cut. All layers get the fraction at which the
  loss reaches one level; the level is the lowest at which no more weights are kept than by the
  paper's fractions.

  Args:
    flat: {path: array} of the dense network.
    papers: {layer: the paper's kept fraction}.
    loss: {path: array} -> loss on training images.
  """
  sizes = {layer: flat[f'{layer}/kernel'].size for layer in papers}
  most = sum(fraction * sizes[layer] for layer, fraction in papers.items())
  rises = {
    layer: [loss(_cut_one(flat, layer, fraction)) for fraction in FRACTIONS] for layer in papers
  }

  def at(level):
    """The smallest fraction of each layer down to which the loss stays at most `level`."""
    chosen = {}
    for layer, losses in rises.items():
      within = [f for i, f in enumerate(FRACTIONS) if all(r <= level for r in losses[: i + 1])]
      chosen[layer] = min(within, default=1.0)
    return chosen

  for level in sorted({loss for losses in rises.values() for loss in losses}):
    chosen = at(level)
    if sum(fraction * sizes[layer] for layer, fraction in chosen.items()) <= most:
      return chosen
  return dict(papers)


def losses(flat: dict, kernels: dict, accuracy) -> dict:
  """Measure each layer's sensitivity to sharing.

  Args:
    flat: {path: array} of the pruned network.
    kernels: {layer: its kernel}.
    accuracy: {path: array} -> accuracy on training images.

  Returns:
    {layer: {bits: the accuracy that the network loses when the values of this layer are shared}}.
  """
  before = accuracy(flat)
  return {
    layer: {
      width: before - accuracy({**flat, f'{layer}/kernel': _shared(kernel, width)})
      for width in BITS
    }
    for layer, kernel in kernels.items()
  }


def bits(sensitivities: dict, slack: float = SLACK) -> dict:
  """Choose the fewest bits of a code for each layer: {layer: bits}.

  Args:
    sensitivities: of `losses`.
    slack: the accuracy that a layer may lose; the most bits are chosen where it always loses more.
  """
  return {
    layer: next((width for width in BITS if lost[width] <= slack), BITS[-1])
    for layer, lost in sensitivities.items()
  }


def fitted_bits(flat: dict, kernels: dict, sensitivities: dict, most: int) -> dict:
  """Choose the bits of each layer as carefully as a number of bytes allows: {layer: bits}.

  Args:
    flat: {path: array} of the pruned network.
    kernels: {layer: its kernel}.
    sensitivities: of `losses`.
    most: bytes that the file may have.

  Returns:
    `bits` for the least of `SLACKS` whose file has at most so many bytes; for the largest where
    none has.
  """
  for slack in SLACKS:
    chosen = bits(sensitivities, slack)
    shared = {f'{layer}/kernel': _shared(kernels[layer], width) for layer, width in chosen.items()}
    coding = {f'{layer}/kernel': width for layer, width in chosen.items()}
    tree = {**flat, **shared}
    file = deep_compression.encode(tree, bits=coding, index_bits=index_bits(tree, chosen))
    if len(file) <= most:
      break
  return chosen


def index_bits(flat: dict, bits: dict) -> dict:
  """Choose the width of a relative index for each layer: the one whose bytes are fewest.

  A narrow index needs fillers, a wide one a long table of Huffman codes.

  Args:
    flat: {path: array} of the network with shared values.
    bits: {layer: bits of a code}.

  Returns:
    {path: width} of each kernel.
  """
  chosen = {}
  for layer, width in bits.items():
    name = f'{layer}/kernel'
    size = lambda index, name=name, width=width: len(
      deep_compression.encode({name: flat[name]}, bits=width, index_bits=index)
    )
    chosen[name] = min(INDEX_BITS, key=size)
  return chosen


def _cut_one(flat, layer, fraction):
  """The network with the largest weights of one layer kept and all others as they are."""
  kernel = np.array(flat[f'{layer}/kernel'])
  removed = kernel.size - round(fraction * kernel.size)
  kernel.ravel()[np.argsort(np.abs(kernel).ravel(), kind='stable')[:removed]] = 0
  return {**flat, f'{layer}/kernel': kernel}


def _shared(kernel, width):
  """The kernel with its kept values shared by k-means, with codes of `width` bits."""
  out = kernel.copy()
  centroids, codes = kmeans.fit(kernel[kernel != 0], 2**width - 1, 'linear')
  out[kernel != 0] = centroids[codes]
  return out
