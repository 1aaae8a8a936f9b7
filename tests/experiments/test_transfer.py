"""Transfer between halves of the digits: the data, masks of the arms, verdicts on planted rows."""

import numpy as np
import pytest

from experiments.gordon2020.claims import judging
from experiments.transfer import claims, halves, study, training
from prunejax.data import handwritten_digits as digits
from prunejax.report import ledger


def test_halves_have_their_digits():
  data, every = halves.load('', 40), digits.load()
  assert data.name == "scikit-learn's digits" and data.side == 12
  for half, start in ((data.first, 0), (data.second, 5)):
    of_half = (every.train_labels >= start) & (every.train_labels < start + 5)
    np.testing.assert_array_equal(half.train.labels + start, every.train_labels[of_half])
    assert half.train.inputs.shape == (of_half.sum(), 12, 12)
    assert len(half.test.labels) == 40 and set(half.test.labels) <= set(range(5))


def test_an_image_lies_somewhere_on_its_canvas_under_noise():
  images = np.random.default_rng(0).random((300, 6, 6)).astype(np.float32)
  placed = halves._placed(images, 1)
  side, seen = 6 + halves.ROOM, set()
  for image, canvas in zip(images, placed, strict=True):
    for down, right in np.ndindex(halves.ROOM + 1, halves.ROOM + 1):
      rest = canvas.copy()
      rest[down : down + 6, right : right + 6] -= image
      if rest.min() >= -1e-6 and rest.max() <= halves.NOISE + 1e-6:
        seen.add((down, right))
        break
    else:
      raise AssertionError('an image is nowhere on its canvas')
  assert placed.shape == (300, side, side) and placed.dtype == np.float32
  assert len(seen) == (halves.ROOM + 1) ** 2
  np.testing.assert_array_equal(placed, halves._placed(images, 1))


def test_few_images_are_as_many_of_each_class():
  half = halves.load('', 40).second
  few = halves.few(half, 25, 1)
  assert np.bincount(few.train.labels).tolist() == [5] * 5 and few.test is half.test
  rows = {image.tobytes() for image in few.train.inputs}
  assert rows <= {image.tobytes() for image in half.train.inputs} and len(rows) == 25
  assert not np.array_equal(few.train.inputs, halves.few(half, 25, 2).train.inputs)
  for count, words in ((24, 'multiple of 5'), (0, 'multiple of 5'), (5000, 'class 0 has')):
    with pytest.raises(ValueError, match=words):
      halves.few(half, count, 0)


def test_an_image_of_28_pixels_is_the_mean_of_four():
  image = np.arange(28 * 28, dtype=np.float32).reshape(1, 28, 28)
  small = halves.small(image)
  assert small.shape == (1, 14, 14)
  assert small[0, 2, 3] == image[0, 4:6, 6:8].mean()


def test_masks_of_the_arms_are_exact():
  rng = np.random.default_rng(0)
  kernels = {name: rng.normal(size=(10, 7)) for name in ('conv1', 'classifier')}
  params = {name: {'kernel': kernel, 'bias': np.ones(7)} for name, kernel in kernels.items()}
  for change in (
    lambda s: training._cut(params, s),
    lambda s: training._drawn(params, s, 3),
  ):
    out = change(0.3)
    assert (out['conv1']['kernel'] == 0).sum() == 21
    assert out['classifier']['kernel'].all() and out['conv1']['bias'].all()
    kept = out['conv1']['kernel'] != 0
    np.testing.assert_array_equal(out['conv1']['kernel'][kept], kernels['conv1'][kept])
  kept = training._cut(params, 0.3)['conv1']['kernel'] != 0
  assert np.abs(kernels['conv1'])[kept].min() > np.abs(kernels['conv1'])[~kept].max()
  assert (params['conv1']['kernel'] != 0).all()  # what was given is not changed
  first, second = (training._drawn(params, 0.5, seed)['conv1']['kernel'] for seed in (0, 1))
  assert not np.array_equal(first, second)


def test_wrong_input_is_refused_before_anything_is_written(tmp_path):
  with pytest.raises(FileNotFoundError, match='no folder .*mnist'):
    study.reproduce('smoke', tmp_path / 'w', overrides={'data.root': str(tmp_path)})
  with pytest.raises(ValueError, match='--config.data.rot: .*did you mean'):
    study.reproduce('smoke', tmp_path / 'w', overrides={'data.rot': ''})
  assert not (tmp_path / 'w').exists()


@pytest.mark.slow
def test_smoke_resumes_and_reports(tmp_path):
  said = []
  study.reproduce('smoke', tmp_path / 'w', dry_run=True, say=said.append)
  assert '9 cells; seconds' in said[0] and not (tmp_path / 'w').exists()
  study.reproduce('smoke', tmp_path / 'w', say=said.append)
  rows = ledger.read(tmp_path / 'w' / 'ledger.jsonl')
  assert len(rows) == 9 and not any(row.get('failed') for row in rows)
  for row in rows:
    if row['arm'] in ('pruned', 'random', 'after'):
      assert row['metrics']['sparsity'] == pytest.approx(0.5, abs=1e-3), row['arm']
    elif row['stage'] == 'finetune':
      # Of deleted weights those whose input is always 0 have no gradient and stay 0.
      assert row['metrics']['sparsity'] < (0.4 if row['arm'] == 'deleted' else 0.01), row['arm']
  lines = (tmp_path / 'w' / 'ledger.jsonl').read_text().splitlines()
  (tmp_path / 'w' / 'ledger.jsonl').write_text('\n'.join(lines[:-2]) + '\n')
  study.reproduce('smoke', tmp_path / 'w', say=said.append)
  assert any('9 cells, 7 done, 2 left' in line for line in said)
  again = ledger.read(tmp_path / 'w' / 'ledger.jsonl')
  assert [row['metrics'] for row in again] == [row['metrics'] for row in rows]
  assert (tmp_path / 'w' / 'figure1.png').exists()


def planted(fall=0.0, recovers=0.0, changed=0.02, seeds=3):
  """Rows in which pruning costs `fall` at 0.7, and deletion brings back `recovers` of one."""
  rows = []

  def add(stage, arm, sparsity, seed, **metrics):
    task = '25 images' if stage == 'finetune' else ''
    labels = {'stage': stage, 'arm': arm, 'sparsity': sparsity, 'seed': seed, 'task': task}
    identity = {'cell': str(len(rows)), 'experiment': 'transfer', 'preset': 'p'}
    rows.append({**identity, **labels, 'learning_rate': 1e-3, 'settings': {}, 'metrics': metrics})

  for seed in range(seeds):
    noise, rest = 1e-3 * seed, {'train_loss': 0.1, 'majority': 0.2}
    score = lambda arm, s, accuracy, seed=seed, noise=noise, rest=rest, **more: add(
      'finetune', arm, s, seed, accuracy=accuracy + noise, **rest, **more
    )
    add('pretrain', 'dense', 0.0, seed, loss=0.1 + noise)
    score('dense', 0.0, 0.9)
    score('fresh', 0.0, 0.6)
    for s, lost in ((0.3, 0.0), (0.5, fall / 2), (0.7, fall), (0.9, 2 * fall)):
      # A difference that is the same for every seed decides nothing.
      lost += 1e-4 * seed
      add('pretrain', 'pruned', s, seed, loss=0.1 + s + noise)
      score('pruned', s, 0.9 - lost)
      score('deleted', s, 0.9 - lost * (1 - recovers))
      score('after', s, 0.88 - lost + 2e-4 * seed, mask_difference=changed + 1e-3 * seed)
      score('random', s, 0.7 - lost + 2e-4 * seed)
  return rows


def words(rows):
  return {v.name: v.verdict for v in claims.claims(claims.grid(rows))}


def test_verdicts_of_planted_rows():
  falls = words(planted(fall=0.1, recovers=0.5))
  assert falls['low_sparsity_is_free'] == falls['loss_rises'] == 'reproduced'
  assert falls['accuracy_falls'] == falls['magnitude_beats_random'] == 'reproduced'
  assert falls['deletion_recovers'] == falls['masks_change_little'] == 'reproduced'
  assert falls['finetuning_first_does_not_help'] == 'reproduced'
  assert falls['free_beyond_bert'] == 'not reproduced'
  free = words(planted(fall=0.0, changed=0.2))
  assert free['free_beyond_bert'] == 'reproduced'
  assert free['masks_change_little'] == free['accuracy_falls'] == 'not reproduced'
  assert set(words(planted(seeds=1)).values()) == {'undecided'}


def test_mask_differences_are_read_by_sparsity():
  data = judging.grid(planted(changed=0.02))
  shares = claims.mask_differences(data)
  assert sorted(shares) == [0.3, 0.5, 0.7, 0.9]
  assert shares[0.3] == {('25 images', seed): 0.02 + 1e-3 * seed for seed in range(3)}
