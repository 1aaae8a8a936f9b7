"""The three MONK's problems (Thrun et al., 1991): six attributes, 432 points, one rule each.

The published training sets were drawn once and cannot be drawn again; without the files a random subset of the same
size stands in, and `source` says so.
"""

import itertools
import pathlib
from typing import NamedTuple

import numpy as np

VALUES = (3, 3, 2, 3, 4, 2)  # of the attributes a1 to a6, counted from 1
TRAIN = {1: 124, 2: 169, 3: 122}
NOISE = {1: 0, 2: 0, 3: 6}  # labels turned round in the published training set
RULES = {
  1: lambda a: (a[:, 0] == a[:, 1]) | (a[:, 4] == 1),
  2: lambda a: np.sum(a == 1, axis=1) == 2,
  3: lambda a: ((a[:, 4] == 3) & (a[:, 3] == 1)) | ((a[:, 4] != 4) & (a[:, 1] != 3)),
}


class Monk(NamedTuple):
  """train_x, test_x float32 [n, 17], the attributes one-hot; train_y, test_y int32 [n], 0 or 1; where they are from."""

  source: str
  train_x: np.ndarray
  train_y: np.ndarray
  test_x: np.ndarray
  test_y: np.ndarray


def load(problem, root='', seed=0) -> Monk:
  """MONK `problem` 1, 2 or 3 from `root`/monks/monks-N.train and .test, or generated where no root is given.

  Raises ValueError for another problem or a damaged file, FileNotFoundError for a missing one.
  """
  if problem not in RULES:
    raise ValueError(f"MONK's problem {problem!r}: accepted: 1, 2, 3")
  if root:
    folder = pathlib.Path(root).expanduser() / 'monks'
    (train, train_y), (test, test_y) = (
      read(folder / f'monks-{problem}.{split}') for split in ('train', 'test')
    )
    return Monk('published files', one_hot(train), train_y, one_hot(test), test_y)
  points, rng = every_point(), np.random.default_rng([seed, problem])
  labels = RULES[problem](points).astype(np.int32)
  chosen = np.sort(rng.permutation(len(points))[: TRAIN[problem]])
  noisy = labels[chosen]
  noisy[rng.permutation(len(chosen))[: NOISE[problem]]] ^= 1
  return Monk(
    f'generated subset, seed {seed}', one_hot(points[chosen]), noisy, one_hot(points), labels
  )


def every_point():
  """int32 [432, 6]: all values of the attributes, the last the fastest, as in the published test files."""
  return np.array(list(itertools.product(*(range(1, n + 1) for n in VALUES))), np.int32)


def one_hot(points):
  """float32 [n, 17] of attributes int [n, 6]."""
  return np.concatenate(
    [np.eye(n, dtype=np.float32)[points[:, i] - 1] for i, n in enumerate(VALUES)], axis=1
  )


def read(path):
  """(attributes int32 [n, 6], labels int32 [n]) of a published file: label, a1 ... a6, name on each line."""
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(
      f"MONK's problems: no file {path}; leave the root empty for generated training sets"
    )
  rows = []
  for number, line in enumerate(path.read_text(errors='replace').splitlines(), 1):
    words = line.split()
    if not words:
      continue
    try:
      label, *values = map(int, words[:7])
    except ValueError:
      label, values = -1, []
    if (
      label not in (0, 1)
      or len(values) != 6
      or not all(1 <= v <= n for v, n in zip(values, VALUES, strict=True))
    ):
      raise ValueError(
        f'{path}, line {number}: {line.strip()!r}; expected a label 0 or 1 and six attributes '
        f'from 1 to {VALUES}'
      )
    rows.append([label, *values])
  if not rows:
    raise ValueError(f'{path}: empty')
  table = np.array(rows, np.int32)
  return table[:, 1:], table[:, 0]
