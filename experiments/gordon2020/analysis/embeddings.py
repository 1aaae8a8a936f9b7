"""Magnitudes of word embeddings, and which of their rows and columns are pruned (Figure 8)."""

import math

import numpy as np

KINDS = ('word starts', 'inner pieces', 'special')

SPACE = '\u0120'  # the sign of byte-level BPE for the space before a word


def heat_map(table, rows=20, columns=32):
  """Mean |w| of a word table [vocabulary, hidden] in blocks, float64 [rows, columns].

  Rows are token ids, which a published vocabulary sorts by frequency; columns are dimensions. A
  table smaller than the map has one block for each row or column.
  """
  size = np.abs(np.asarray(table, np.float64))
  for axis, parts in enumerate((rows, columns)):
    edges = np.linspace(0, size.shape[axis], min(parts, size.shape[axis]) + 1).astype(int)
    lengths = np.diff(edges).reshape((-1, 1) if axis == 0 else (1, -1))
    size = np.add.reduceat(size, edges[:-1], axis) / lengths
  return size


def kinds(pieces):
  """{kind: bool [vocabulary]} for the kinds of tokens in KINDS.

  In WordPiece an inner piece starts with '##'. In byte-level BPE a token is an inner piece where it
  does not start with the sign for a space. '[CLS]', '[unused7]' and '<|endoftext|>' are special.
  """
  special = np.array([len(p) > 2 and p[0] + p[-1] in ('[]', '<>') for p in pieces])
  inner = np.array([p.startswith('##') for p in pieces])
  if not inner.any():
    inner = ~np.array([p.startswith(SPACE) for p in pieces])
  return {'word starts': ~special & ~inner, 'inner pieces': inner & ~special, 'special': special}


def lengths(pieces, longest=8):
  """int [vocabulary]: characters of a token without its '##' or space sign, up to `longest`."""
  return np.array([min(len(p.removeprefix('##').removeprefix(SPACE)), longest) for p in pieces])


def pruned_by_kind(mask, pieces):
  """{kind: (share of weights pruned, number of tokens)} of the kinds that a vocabulary has."""
  return {
    kind: (float(1 - _fit(mask, pieces)[where].mean()), int(where.sum()))
    for kind, where in kinds(pieces).items()
    if where.any()
  }


def pruned_by_length(mask, pieces, longest=8):
  """{characters: (share pruned of word starts, of inner pieces)}, nan where there is none."""
  mask, length, tokens = _fit(mask, pieces), lengths(pieces, longest), kinds(pieces)
  result = {}
  for n in range(1, longest + 1):
    groups = [tokens[kind] & (length == n) for kind in KINDS[:2]]
    if any(group.any() for group in groups):
      result[n] = tuple(
        float(1 - mask[group].mean()) if group.any() else math.nan for group in groups
      )
  return result


def pruned_by_dimension(mask):
  """Share pruned of each dimension, ascending, float64 [hidden], and its deviation by chance.

  The deviation is that of the share of one dimension under random masks.
  """
  gone = ~np.asarray(mask)
  size, drawn, marked = gone.size, gone.shape[0], int(gone.sum())
  variance = marked * (size - marked) * (size - drawn) / (size * size * max(size - 1, 1) * drawn)
  return np.sort(gone.mean(0)), math.sqrt(variance)


def _fit(mask, pieces):
  mask = np.asarray(mask)
  if not len(pieces) <= len(mask) < len(pieces) + 128:  # tables are often rounded up
    raise ValueError(
      f'a vocabulary of {len(pieces)} pieces does not fit a word table of {len(mask)} rows'
    )
  return mask[: len(pieces)]
