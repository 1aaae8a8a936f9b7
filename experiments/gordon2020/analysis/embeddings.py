"""Magnitudes of the word embeddings, and which of their rows and columns are pruned (Gordon et al. 2020, Figure 8)."""

import math

import numpy as np

KINDS = ('word starts', 'inner pieces', 'special')

SPACE = '\u0120'  # how byte-level BPE writes the space before a word


def heat_map(table, rows=20, columns=32):
  """Mean |w| of a word table [vocabulary, hidden] in blocks, float64 [rows, columns].

  Rows are token ids in their order, which is that of frequency in a published vocabulary; columns are dimensions.
  A table smaller than the map has as many blocks as it has rows or columns.
  """
  size = np.abs(np.asarray(table, np.float64))
  for axis, parts in enumerate((rows, columns)):
    edges = np.linspace(0, size.shape[axis], min(parts, size.shape[axis]) + 1).astype(int)
    lengths = np.diff(edges).reshape((-1, 1) if axis == 0 else (1, -1))
    size = np.add.reduceat(size, edges[:-1], axis) / lengths
  return size


def kinds(pieces):
  """{kind: bool [vocabulary]} for the kinds of tokens in KINDS.

  In WordPiece an inner piece starts with '##'; in byte-level BPE, which has none of these, whatever does not start with
  its sign for a space. '[CLS]', '[unused7]' and '<|endoftext|>' are special.
  """
  special = np.array([len(p) > 2 and p[0] + p[-1] in ('[]', '<>') for p in pieces])
  inner = np.array([p.startswith('##') for p in pieces])
  if not inner.any():
    inner = ~np.array([p.startswith(SPACE) for p in pieces])
  return {'word starts': ~special & ~inner, 'inner pieces': inner & ~special, 'special': special}


def lengths(pieces, longest=8):
  """int [vocabulary]: characters of a token without its '##' or sign for a space, at most `longest`."""
  return np.array([min(len(p.removeprefix('##').removeprefix(SPACE)), longest) for p in pieces])


def pruned_by_kind(mask, pieces):
  """{kind: (share of its weights pruned, number of tokens)} from a mask [vocabulary, hidden]; kinds that exist only."""
  return {
    kind: (float(1 - _fit(mask, pieces)[where].mean()), int(where.sum()))
    for kind, where in kinds(pieces).items()
    if where.any()
  }


def pruned_by_length(mask, pieces, longest=8):
  """{characters: (share pruned of word starts, of inner pieces)}, nan where there is none; special ones out."""
  mask, length, of = _fit(mask, pieces), lengths(pieces, longest), kinds(pieces)
  result = {}
  for n in range(1, longest + 1):
    groups = [of[kind] & (length == n) for kind in KINDS[:2]]
    if any(group.any() for group in groups):
      result[n] = tuple(
        float(1 - mask[group].mean()) if group.any() else math.nan for group in groups
      )
  return result


def pruned_by_dimension(mask):
  """(share pruned of each dimension, float64 [hidden], ascending; sd of one dimension's share under random masks)."""
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
