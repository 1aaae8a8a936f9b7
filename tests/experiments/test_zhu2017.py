"""Zhu & Gupta 2017: the real command, verdicts on planted ledgers, reading text."""

import json
import math

import pytest

from experiments.zhu2017 import claims, corpus, paper, study
from prunejax import __main__ as command
from prunejax.report import ledger


def planted(perplexity, seeds=3, coarse=0.0):
  """A ledger whose perplexities are `perplexity(size, sparsity)`, times a little noise."""
  p, rows = study.PRESETS['quick'], []
  for seed in range(seeds):
    arms = [(size, s, p.intervals[0]) for size, levels in p.sparsities.items() for s in levels]
    for size, s, interval in [*arms, ('large', p.intervals_at, p.intervals[1])]:
      loss = (
        math.log(perplexity(size, s)) + 0.002 * seed + (coarse if interval == p.intervals[1] else 0)
      )
      metrics = {
        'loss': loss,
        'perplexity': math.exp(loss),
        'nonzeros': int(1e6 * paper.nonzeros(size, s)),
      }
      rows.append(
        {'size': size, 'sparsity': s, 'interval': interval, 'seed': seed, 'metrics': metrics}
      )
  return rows


def verdicts(rows):
  return {v.name: v.verdict for v in claims.claims(rows)}


def test_the_papers_own_numbers_reproduce_every_claim():
  assert set(verdicts(planted(lambda size, s: paper.PERPLEXITY[size][s])).values()) == {
    'reproduced'
  }


def test_opposites_do_not_and_one_seed_says_nothing():
  opposite = lambda size, s: 400 - paper.PERPLEXITY[size][s]
  got = verdicts(planted(opposite, coarse=0.1))
  assert set(got.values()) == {'not reproduced'}, got
  assert set(verdicts(planted(opposite, seeds=1)).values()) == {'undecided'}


def test_a_part_of_a_ledger_is_compared_within_a_seed():
  rows = planted(lambda size, s: paper.PERPLEXITY[size][s])
  lacks = {(0.8, 0), (0.95, 2)}  # Seed 1 alone has large networks at 0.8, 0.9 and 0.95.
  part = [r for r in rows if (r['sparsity'], r['seed']) not in lacks or r['size'] != 'large']
  bends = next(v for v in claims.claims(part) if v.name == 'the_curve_bends')
  assert bends.verdict == 'undecided' and ', one seed, ' in bends.number


def test_smallest_preset_by_the_command(tmp_path):
  folder = tmp_path / 'run'
  assert command.main(['reproduce', 'zhu2017', '--preset=smoke', f'--workdir={folder}']) == 0
  rows = ledger.read(folder / 'ledger.jsonl')
  for row in rows:
    shape = row['settings']['vocabulary'], row['settings']['hidden']
    kernels = [shape[0] * shape[1], shape[0] * shape[1], *[8 * shape[1] ** 2] * 2]
    kept = sum(n - math.floor(n * row['sparsity'] + 0.5) for n in kernels)
    assert row['metrics']['sparsity'] == pytest.approx(1 - kept / sum(kernels))
    assert row['metrics']['nonzeros'] <= kept + row['metrics']['parameters'] - sum(kernels)
  # Dense and pruned runs start from the same weights and read the same text; only masks differ.
  assert len({row['metrics']['loss'] for row in rows}) == len(
    {(r['size'], r['sparsity'], r['interval']) for r in rows}
  )
  assert (folder / 'perplexity.png').stat().st_size > 10_000
  again = tmp_path / 'again'
  assert (
    command.main(['report', str(folder / 'ledger.jsonl'), f'--out={again}']) == 0
  )  # the ledger is enough
  assert (again / 'perplexity.png').read_bytes() == (folder / 'perplexity.png').read_bytes()
  assert json.loads((folder / 'grid.json').read_text()) == {'paper': 'zhu2017', 'preset': 'smoke'}


def test_text_as_the_penn_treebank_has_it(tmp_path):
  text = 'The cat saw 12 dogs. It ran 3 miles!\n\n' * 2000
  (tmp_path / 'a.txt').write_text(text)
  train, held_out, known = corpus.load(str(tmp_path), 1000, 8)
  assert known[:2] == ('<unk>', '<eos>') and 'N' in known and 'The' not in known
  assert len(train) > 3 * len(held_out) > 0 and train.max() == 7
  with pytest.raises(ValueError, match='fewer than the vocabulary of 50'):
    corpus.load(str(tmp_path), 1000, 50)


def test_what_is_no_text_is_refused_before_anything_runs(tmp_path, capsys):
  args = [
    'reproduce',
    'zhu2017',
    '--preset=smoke',
    f'--workdir={tmp_path}/out',
    f'--config.data.root={tmp_path}/none',
  ]
  assert command.main(args) == 2
  assert 'none' in capsys.readouterr().err and not (tmp_path / 'out').exists()
