"""Judge the claims of Zhu & Gupta 2017 on translation; BLEU is compared within a seed."""

from prunejax.report.verdicts import Comparison, Verdict, all_hold, decided_by, shown

SAME = 0.5  # BLEU below dense that counts as none.
LITTLE = 1.0  # BLEU below dense that counts as little; the paper loses 0.58.


def by_seed(rows: list[dict], size: str, sparsity: float, allocation: str = 'layer') -> dict:
  """Collect the BLEU of an arm, {seed: BLEU}.

  Args:
    rows: of the ledger.
    size: 'small' or 'large'.
    sparsity: 0 for the dense model.
    allocation: of a pruned model, 'layer' or 'global'.
  """
  wanted = (size, sparsity, allocation if sparsity else '')
  return {
    row['seed']: row['metrics']['bleu']
    for row in rows
    if (row['size'], row['sparsity'], row['allocation']) == wanted
  }


def claims(rows: list[dict]) -> list[Verdict]:
  """Judge every claim."""
  dense, small = by_seed(rows, 'large', 0.0), by_seed(rows, 'small', 0.0)
  eighty, ninety = by_seed(rows, 'large', 0.8), by_seed(rows, 'large', 0.9)
  one_threshold = by_seed(rows, 'large', 0.9, 'global')
  return [
    _verdict(
      'large_sparse_beats_small_dense',
      'Large at 90 % beats small dense, which has some four times its non-zeros (26.19 against '
      '26.05)',
      'BLEU over small dense',
      _gap(ninety, small),
    ),
    _verdict(
      'eighty_for_nothing',
      'Large at 80 % is as good as large dense (26.86 against 26.77; within 0.5)',
      'BLEU over large dense, 0.8',
      _gap(eighty, dense),
      -SAME,
    ),
    _verdict(
      'ninety_costs_little',
      'Large at 90 % loses little (26.19 against 26.77; within 1)',
      'BLEU over large dense, 0.9',
      _gap(ninety, dense),
      -LITTLE,
    ),
    _verdict(
      'layers_alike',
      'The same sparsity in each layer is better than one threshold for all',
      'BLEU over one threshold, 0.9',
      _gap(ninety, one_threshold),
    ),
  ]


def _gap(first, second):
  return [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]


def _verdict(name, claim, what, gaps, threshold=0.0):
  above = [Comparison(what, gaps, threshold, form='+.2f')]
  return Verdict(
    name,
    claim,
    all_hold(above),
    f'{shown(gaps, "+.2f")} {what}' if gaps else 'cells are missing',
    ('bleu',),
    decided_by(above),
  )
