"""Two tasks out of one labelled set of images: the digits 0 to 4, and the digits 5 to 9."""

import functools
from typing import NamedTuple

import numpy as np

from experiments.classification.training import Examples
from prunejax.data import handwritten_digits as digits

CLASSES = 5  # of each half
ROOM = 4  # pixels by which the canvas of an image is larger
NOISE = 0.5  # most of the noise that is added to a pixel


class Half(NamedTuple):
  """One half of the classes, with labels from 0 to 4.

  Attributes:
    train, test: `Examples`.
  """

  train: Examples
  test: Examples


class Halves(NamedTuple):
  """Both halves.

  Attributes:
    name: of the digits.
    side: pixels of an image's side.
    first: digits 0 to 4, for pre-training.
    second: digits 5 to 9, for fine-tuning.
  """

  name: str
  side: int
  first: Half
  second: Half


@functools.lru_cache(maxsize=2)
def load(root: str, test: int, content_read: str = '') -> Halves:
  """Read the digits and divide them by class.

  MNIST is reduced to 14 x 14 pixels, each the mean of four. Every image is then put at a random
  place of a larger canvas, and noise is added. A network that was never pre-trained learns as much
  from a few images in one place and without noise as one that was.

  Args:
    root: folder that holds `mnist/`, or '' for scikit-learn's digits.
    test: most test images of a half.
    content_read: tells one content of the files from another, since images are kept in memory.

  Raises:
    FileNotFoundError, ValueError: for missing or damaged files.
  """
  data = digits.load(root)
  train, held_out = (
    _placed(small(images), seed)
    for seed, images in enumerate((data.train_images, data.test_images))
  )
  halves = []
  for start in (0, CLASSES):
    parts = []
    for images, labels, most in (
      (train, data.train_labels, None),
      (held_out, data.test_labels, test),
    ):
      rows = np.flatnonzero((labels >= start) & (labels < start + CLASSES))[:most]
      parts.append(Examples(images[rows], labels[rows] - start))
    halves.append(Half(*parts))
  return Halves(data.name, train.shape[1], *halves)


def few(half: Half, count: int, seed: int) -> Half:
  """Draw `count` training examples of a half, as many of each class.

  Raises:
    ValueError: `count` is no multiple of the classes, or a class has too few examples.
  """
  if count % CLASSES or count < CLASSES:
    raise ValueError(f'transfer: {count} images; accepted: a multiple of {CLASSES}')
  rng, rows = np.random.default_rng(seed), []
  for label in range(CLASSES):
    there = np.flatnonzero(half.train.labels == label)
    if len(there) < count // CLASSES:
      raise ValueError(
        f'transfer: {count // CLASSES} images of a class asked for; class {label} has {len(there)}'
      )
    rows.append(rng.choice(there, count // CLASSES, replace=False))
  rows = np.sort(np.concatenate(rows))
  return half._replace(train=Examples(half.train.inputs[rows], half.train.labels[rows]))


def small(images: np.ndarray) -> np.ndarray:
  """Reduce images of 28 x 28 to 14 x 14, each pixel the mean of four; leave others as they are."""
  n, height, width = images.shape
  if height < 28:
    return images
  return images.reshape(n, height // 2, 2, width // 2, 2).mean((2, 4))


def _placed(images, seed):
  """Every image at a random place of a canvas `ROOM` pixels larger, under uniform noise."""
  rng = np.random.default_rng(seed)
  n, side, _ = images.shape
  out = NOISE * rng.random((n, side + ROOM, side + ROOM), np.float32)
  places = rng.integers(0, (ROOM + 1) ** 2, n)
  for place in range((ROOM + 1) ** 2):
    rows, (down, right) = places == place, divmod(place, ROOM + 1)
    out[rows, down : down + side, right : right + side] += images[rows]
  return out
