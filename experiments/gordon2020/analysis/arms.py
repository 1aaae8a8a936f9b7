"""The arms of a pruning grid: their order, names, colours and markers, one each wherever they appear."""

import hashlib

# Okabe and Ito's palette: told apart with any colour vision; markers say it once more.
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
)  # where a curve is no arm
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
# The checkpoint a fine-tuned arm started from: deletion starts where pruning ended.
SOURCE = {
  'deleted': 'pruned',
  'pruned': 'pruned',
  'random': 'random',
  'dense': 'dense',
  'after': 'dense',
}


def standard(rows):
  """The rows of the paper's own arms, dense and fresh among them; switches, sweeps and probes are left out."""
  return [row for row in rows if row['arm'] in ORDER and row['stage'] in ('pretrain', 'finetune')]


def family(rows, prefix):
  """{what follows the colon: its rows} of the arms named 'prefix:...', in the order they first appear."""
  found = {}
  for row in rows:
    head, colon, rest = row['arm'].partition(':')
    if colon and head == prefix:
      found.setdefault(rest, []).append(row)
  return found


def name(arm):
  """What a reader calls an arm: its name, or the arm itself when it has none."""
  return NAMES.get(arm, arm)


def colour(arm):
  """The one colour of an arm; an arm without one gets the same one of OTHERS on every machine."""
  return COLOURS.get(arm) or OTHERS[hashlib.sha256(arm.encode()).digest()[0] % len(OTHERS)]


def order(key):
  """Sorts (arm, sparsity) as the paper does: arms in its order, then by sparsity."""
  arm, sparsity = key
  return (ORDER.index(arm) if arm in ORDER else len(ORDER), arm, sparsity)
