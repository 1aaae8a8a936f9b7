"""The MONK's problems: what is generated or read, and the errors for missing or damaged files."""

import numpy as np
import pytest

from prunejax.data import monks


# Positive points of the whole space, as published.
@pytest.mark.parametrize(
  ('problem', 'size', 'positive', 'flipped'), [(1, 124, 216, 0), (2, 169, 142, 0), (3, 122, 228, 6)]
)
def test_generated_monks(problem, size, positive, flipped):
  got = monks.load(problem, seed=3)
  assert got.train_x.shape == (size, 17) and got.test_x.shape == (432, 17)
  assert got.test_y.sum() == positive and 'generated' in got.source
  assert np.all(got.train_x.sum(axis=1) == 6) and len(np.unique(got.train_x, axis=0)) == size
  truth = {tuple(x): y for x, y in zip(got.test_x, got.test_y, strict=True)}
  assert sum(truth[tuple(x)] != y for x, y in zip(got.train_x, got.train_y, strict=True)) == flipped
  assert not np.array_equal(got.train_x, monks.load(problem, seed=4).train_x)


def write_monk(folder, lines):
  (folder / 'monks').mkdir()
  for split in ('train', 'test'):
    (folder / 'monks' / f'monks-1.{split}').write_text('\n'.join(lines))


def test_monk_files(tmp_path):
  write_monk(tmp_path, [' 1 1 1 1 1 3 1 data_5', ' 0 3 2 2 1 4 2 data_7', ''])
  got = monks.load(1, str(tmp_path))
  np.testing.assert_array_equal(got.train_y, [1, 0])
  np.testing.assert_array_equal(np.flatnonzero(got.train_x[1]), [2, 4, 7, 8, 14, 16])


@pytest.mark.parametrize('line', ['1 1 1 1 1 5 1 x', '2 1 1 1 1 1 1 x', '1 1 1', '1 a 1 1 1 1 1 x'])
def test_damaged_monk_files(tmp_path, line):
  write_monk(tmp_path, [' 1 1 1 1 1 3 1 data_5', line])
  with pytest.raises(ValueError, match='monks-1.train, line 2'):
    monks.load(1, str(tmp_path))


def test_missing_monks(tmp_path):
  with pytest.raises(FileNotFoundError, match='monks-2.train'):
    monks.load(2, str(tmp_path))
  with pytest.raises(ValueError, match='accepted: 1, 2, 3'):
    monks.load(4)
