"""The three MONK's problems (Thrun et al., 1991): six attributes, 432 points, one rule each.

The published training sets are random subsets that only their files contain. Without the files,
`load` draws other subsets of the same size and says so in `source`.
"""

import itertools
import os
import pathlib
from typing import NamedTuple

import numpy as np

from prunejax.data import content

VALUES = (3, 3, 2, 3, 4, 2)  # attribute i has the values 1 to VALUES[i]
TRAIN = {1: 124, 2: 169, 3: 122}  # size of the published training set of each problem
NOISE = {1: 0, 2: 0, 3: 6}  # labels that are wrong in it
RULES = {
  1: lambda a: (a[:, 0] == a[:, 1]) | (a[:, 4] == 1),
  2: lambda a: np.sum(a == 1, axis=1) == 2,
  3: lambda a: ((a[:, 4] == 3) & (a[:, 3] == 1)) | ((a[:, 4] != 4) & (a[:, 1] != 3)),
}


class Monk(NamedTuple):
  """One problem.

  Attributes:
    source: 'published files', or how the training set was drawn.
    train_x: float32 [n, 17], the six attributes one-hot.
    train_y: int32 [n], 0 or 1.
    test_x: float32 [432, 17].
    test_y: int32 [432].
  """

  source: str
  train_x: np.ndarray
  train_y: np.ndarray
  test_x: np.ndarray
  test_y: np.ndarray


def load(problem: int, root: str | os.PathLike = '', seed: int = 0) -> Monk:
  """Reads or draws one of the problems.

  Args:
    problem: 1, 2 or 3.
    root: folder with monks/monks-N.train and monks/monks-N.test; without one, a training set is
      drawn.
    seed: seed of a training set that is drawn.

  Returns:
    The problem.

  Raises:
    ValueError: another problem; a damaged file.
    FileNotFoundError: a file that is missing.
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
  drawn = np.sort(rng.permutation(len(points))[: TRAIN[problem]])
  train_labels = labels[drawn]
  train_labels[rng.permutation(len(drawn))[: NOISE[problem]]] ^= 1
  source = f'generated subset, seed {seed}'
  return Monk(source, one_hot(points[drawn]), train_labels, one_hot(points), labels)


def fingerprint(root: str | os.PathLike = '') -> str:
  """Returns 12 hex digits that change with what `load` reads; its errors are those."""
  problems = [load(problem, root) for problem in RULES]
  return content.of_arrays([x for problem in problems for x in problem if not isinstance(x, str)])


def every_point() -> np.ndarray:
  """Returns all points, int32 [432, 6], in the order of the published test files.

  The last attribute varies fastest.
  """
  return np.array(list(itertools.product(*(range(1, n + 1) for n in VALUES))), np.int32)


def one_hot(points: np.ndarray) -> np.ndarray:
  """Encodes attributes int [n, 6] as float32 [n, 17]."""
  return np.concatenate(
    [np.eye(n, dtype=np.float32)[points[:, i] - 1] for i, n in enumerate(VALUES)], axis=1
  )


def read(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
  """Reads a published file, with a label, six attributes and a name on each line.

  Returns:
    (attributes int32 [n, 6], labels int32 [n]).

  Raises:
    FileNotFoundError: a missing file.
    ValueError: an empty file, or a damaged line, with its number.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(
      f"MONK's problems: no file {path}; an empty root generates the training sets"
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
        f'from 1 to {VALUES}, in this order'
      )
    rows.append([label, *values])
  if not rows:
    raise ValueError(f'{path}: empty')
  table = np.array(rows, np.int32)
  return table[:, 1:], table[:, 0]
