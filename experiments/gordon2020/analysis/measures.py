"""What is measured on the models of the grid: weights and masks in, small plain numbers out.

Models are flat dicts {path: array}; what the ledger keeps of them is rounded and averaged, so that a row stays small
and every figure can be drawn from the ledger alone.
"""

import math
import re

import numpy as np

from experiments.gordon2020.analysis import embeddings, heads, mask_overlap, movement

FEW = 0.6  # the sparsity of the paper's Figure 3b
WORDS = 'embeddings/word/embedding'
LAYER = re.compile(r'.*layer_(\d+)/')


def fine_tuned(before, after, masks, sparsities):
  """Masks of a fine-tuned dense model against those found without it (Figure 3).

  Args:
    before, after: prunable weights at the start and at the end of fine-tuning.
    masks: {sparsity: masks of the model pruned in pre-training}.
    sparsities: where to prune both by magnitude, in one shot.

  Returns:
    dict of lists over sparsities: fraction of entries in which the fine-tuned model's mask differs from the
    pre-training one ('pruned', None where there is none), and from the one before fine-tuning ('start'), what two
    random masks would differ in ('chance'), and 'start' by kind of matrix ('kinds').
  """
  out = {'sparsity': list(sparsities), 'pruned': [], 'start': [], 'chance': [], 'kinds': {}}
  for s in sparsities:
    ours, theirs = mask_overlap.magnitude(after, s), mask_overlap.magnitude(before, s)
    start = mask_overlap.differing(ours, theirs)
    pruned = mask_overlap.differing(ours, masks[s]) if s in masks else None
    out['start'].append(few(mask_overlap.share(start.values())))
    out['pruned'].append(few(mask_overlap.share(pruned.values())) if pruned else None)
    sizes = [leaf.size for leaf in after.values()]
    alike = [2 * k * (n - k) / n for n in sizes for k in [mask_overlap.kept(n, s)]]
    out['chance'].append(few(sum(alike) / sum(sizes)))
    for kind, paths in kinds(after).items():
      out['kinds'].setdefault(kind, []).append(
        few(mask_overlap.share([start[path] for path in paths]))
      )
  return out


def moved(before, after):
  """Movement in magnitude order while a dense model was fine-tuned: Table 2, Figures 4 and 6.

  As the paper's numbers it leaves the word embeddings out; theirs stand under 'words'. 'kinds' and 'kinds_std' hold
  {kind of matrix: one number a layer}, 'by_magnitude' 100 bins of starting magnitude, the smallest first.
  """
  drop = lambda leaves: {path: leaf for path, leaf in leaves.items() if path != WORDS}
  found = movement.measure(drop(before), drop(after))
  out = {'mean': few(found['mean']), 'std': few(found['std']), 'weights': found['weights']}
  out['kinds'], out['kinds_std'] = (
    {
      kind: [few(found['matrices'][path][i]) for path in paths]
      for kind, paths in kinds(found['matrices']).items()
    }
    for i in (0, 1)
  )
  if WORDS in before:
    words = movement.movement(before[WORDS], after[WORDS])
    out['words'] = [few(words.mean()), few(words.std())]
  return {**out, 'by_magnitude': [few(v, 3) for v in found['by_magnitude']]}


def spread(leaves):
  """Mean and deviation of the weights of each matrix, by kind and layer (Table 3)."""
  found = movement.spread(leaves)
  pick = lambda i: {
    kind: [few(found[path][i], 3) for path in paths] for kind, paths in kinds(found).items()
  }
  return {'mean': pick(0), 'std': pick(1)}


def shared(pairs, sparsities):
  """Weights kept by both of two mask trees, against chance; lists over sparsities. pairs: (masks, masks) of each."""
  found = [mask_overlap.common(a, b) for a, b in pairs]
  lists = {
    name: [few(getattr(one, name), 6) for one in found] for name in mask_overlap.Common._fields
  }
  return {'sparsity': list(sparsities), **lists}


def nested(masks):
  """Nesting of masks {sparsity: masks} over neighbouring sparsities: lists, each with what chance would give."""
  levels = sorted(masks)
  found = [
    mask_overlap.nesting(masks[high], masks[low])
    for low, high in zip(levels, levels[1:], strict=False)
  ]
  return {
    'denser': levels[:-1],
    'sparser': levels[1:],
    'nested': [few(f[0], 6) for f in found],
    'expected': [few(f[1], 6) for f in found],
  }


def of_heads(masks, count):
  """Share of each attention head that is pruned, {sparsity: masks}: lists over sparsities, and every head at one.

  'lowest' and 'highest' are the extremes over all heads, 'sd' what one head would vary by at random.
  """
  out = {
    name: [] for name in ('sparsity', 'expected', 'mean', 'lowest', 'highest', 'deviation', 'sd')
  }
  middle = min(masks, key=lambda s: (abs(s - 0.5), s))
  for s in sorted(masks):
    found = heads.pruned(attention(masks[s]), count)
    share = found.share
    numbers = (s, found.expected, share.mean(), share.min(), share.max(), share.std(), found.sd)
    for name, value in zip(out, numbers, strict=True):
      out[name].append(few(value, 5))
    if s == middle:
      whole = {'at': s, 'heads': [[few(v, 3) for v in layer] for layer in share]}
  return {**out, **whole}


def of_words(masks, pieces):
  """Which word embeddings are pruned, {sparsity: mask of the table}: lists over sparsities (Figure 8)."""
  levels = sorted(masks)
  out = {'sparsity': levels, 'kinds': {}, 'tokens': {}, 'lengths': {}, 'dimensions': [], 'sd': []}
  for s in levels:
    for kind, (share, tokens) in embeddings.pruned_by_kind(masks[s], pieces).items():
      out['kinds'].setdefault(kind, []).append(few(share))
      out['tokens'][kind] = tokens
    for length, shares in embeddings.pruned_by_length(masks[s], pieces).items():
      out['lengths'].setdefault(str(length), []).append([few(v) for v in shares])
    shares, sd = embeddings.pruned_by_dimension(masks[s])
    out['dimensions'].append([few(v) for v in np.quantile(shares, (0, 0.25, 0.5, 0.75, 1))])
    out['sd'].append(few(sd))
  return out


def heat(table):
  """Mean magnitudes of the word table in blocks, whole thousandths of the largest block ('unit', its magnitude)."""
  blocks = embeddings.heat_map(table)
  unit = float(blocks.max())
  return {'unit': few(unit), 'map': np.rint(1000 * blocks / (unit or 1.0)).astype(int).tolist()}


def attention(masks):
  """[{'query', 'key', 'value', 'output': mask}] by layer, from a flat mask tree."""
  layers = {}
  for path, mask in masks.items():
    at = re.fullmatch(r'.*layer_(\d+)/attention/(\w+)/kernel', path)
    if at:
      layers.setdefault(int(at[1]), {})[at[2]] = mask
  return [layers[i] for i in sorted(layers)]


def kinds(paths):
  """{kind of matrix: its paths by layer}: 'attention/query', 'ffn/output', 'pooler', 'embeddings/word'."""
  found = {}
  for path in paths:
    found.setdefault(LAYER.sub('', path).rsplit('/', 1)[0], []).append(path)
  number = lambda path: int(at[1]) if (at := LAYER.match(path)) else 0
  return {kind: sorted(found[kind], key=number) for kind in sorted(found)}


def few(value, digits=4):
  """A float of so many significant digits, None where it is no finite number; integers as they are."""
  if isinstance(value, int | np.integer):
    return int(value)
  return float(f'{value:.{digits}g}') if math.isfinite(value) else None
