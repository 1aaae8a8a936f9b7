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


def bits(flat: dict, kernels: dict, accuracy) -> dict:
  """Choose the fewest bits of a code for each layer, by the layer's sensitivity to sharing.

  Args:
    flat: {path: array} of the pruned network.
    kernels: {layer: its kernel}.
    accuracy: {path: array} -> accuracy on training images.

  Returns:
    {layer: bits}: the fewest at which the network, with values shared in this layer alone, loses at
    most `SLACK`; the most bits where it always loses more.
  """
  before, chosen = accuracy(flat), {}
  for layer, kernel in kernels.items():
    chosen[layer] = BITS[-1]
    for width in BITS:
      shared = kernel.copy()
      centroids, codes = kmeans.fit(kernel[kernel != 0], 2**width - 1, 'linear')
      shared[kernel != 0] = centroids[codes]
      if accuracy({**flat, f'{layer}/kernel': shared}) >= before - SLACK:
        chosen[layer] = width
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
