"""The arms of the grid: their order, names, colours and markers."""

import hashlib

# Okabe and Ito's palette, which any colour vision tells apart; each arm has its own marker too.
COLOURS = {
  'pruned': '#0072B2',
  'deleted': '#D55E00',
  'after': '#009E73',
  'random': '#CC79A7',
  'dense': '#222222',
  'fresh': '#777777',
}
MARKERS = {'pruned': 'o', 'deleted': 's', 'after': '^', 'random': 'X'}
SERIES = (
  '#0072B2',
  '#D55E00',
  '#009E73',
  '#CC79A7',
  '#E69F00',
  '#56B4E9',
  '#222222',
)  # for curves that are not arms
OTHERS = (
  '#B8860B',
  '#56B4E9',
  '#8C564B',
  '#6A51A3',
  '#4D9221',
  '#A50F15',
)  # for arms that are not in COLOURS
ORDER = ('dense', 'pruned', 'deleted', 'after', 'random', 'fresh')
CURVES = ('pruned', 'deleted', 'after', 'random')
NAMES = {
  'dense': 'dense',
  'pruned': 'pruned in pre-training',
  'deleted': 'information deletion',
  'after': 'pruned after fine-tuning',
  'random': 'random pruning',
  'fresh': 'never pre-trained',
  'permuted': 'permuted masks',
  'unmasked': 'masks removed',
  'burned in': 'burned in',
}
# The arm whose checkpoint a fine-tuned arm starts from: deletion starts where pruning ended.
SOURCE = {
  'deleted': 'pruned',
  'pruned': 'pruned',
  'random': 'random',
  'dense': 'dense',
  'after': 'dense',
}


def standard(rows):
  """The rows of the paper's own arms, without switches, sweeps and probes."""
  return [row for row in rows if row['arm'] in ORDER and row['stage'] in ('pretrain', 'finetune')]


def family(rows, prefix):
  """{NAME: rows} of the arms named 'prefix:NAME', in the order of first appearance."""
  families = {}
  for row in rows:
    head, colon, rest = row['arm'].partition(':')
    if colon and head == prefix:
      families.setdefault(rest, []).append(row)
  return families


def name(arm):
  """The name of an arm in a report; the arm itself where it has none."""
  return NAMES.get(arm, arm)


def colour(arm):
  """The colour of an arm; an arm that is not in COLOURS gets one of OTHERS, always the same."""
  return COLOURS.get(arm) or OTHERS[hashlib.sha256(arm.encode()).digest()[0] % len(OTHERS)]


def order(key):
  """A key that sorts (arm, sparsity) as the paper does: by arm, then by sparsity."""
  arm, sparsity = key
  return (ORDER.index(arm) if arm in ORDER else len(ORDER), arm, sparsity)
