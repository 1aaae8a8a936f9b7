"""Probes: what the paper measures on models and masks, from kept models to rows of the ledger.

A probe's row has stage 'probe'; `probe_tables` draws it.
"""

import datetime
import functools
import itertools
import time
from typing import NamedTuple

import numpy as np
from flax import traverse_util

from experiments.gordon2020.analysis import hidden_states, mask_overlap, measures
from prunejax import files
from prunejax.models import bert
from prunejax.models.hf import folder as hf_directory
from prunejax.pruning import paths
from prunejax.report import ledger
from prunejax.sweep import dependencies, grid
from prunejax.train import configs, console, families, inputs

VERSION = 2  # of the measures; a change measures everything anew
TOKENS = 25_000  # tokens of held-out text; the paper caps its vectors at 300,000
PRUNED = ('pruned', 'random')
TUNED = ('dense', 'before', 'epochs')


class Probe(NamedTuple):
  """One measurement.

  name: of its function in MEASURES.
  labels: the columns of its row: arm, sparsity, seed, task, learning_rate and more.
  models: {role: cell, {sparsity: cell}, or [cell, ...]} that it reads.
  """

  name: str
  labels: dict
  models: dict

  def cell(self):
    """The hash that names the row."""
    return ledger.cell_hash(
      {'probe': self.name, 'version': VERSION, 'models': self.models, 'labels': self.labels}
    )

  def describe(self):
    """The labels as text: 'pruned seed 0 against seed 1'."""
    words = grid.describe({k: v for k, v in self.labels.items() if k != 'sparsity'})
    return words + ''.join(
      f' {name} {self.labels[name]}' for name in ('epochs', 'against') if name in self.labels
    )

  def parents(self):
    """The cells that the probe reads, each once, in order."""
    flat = itertools.chain.from_iterable(_cells(value) for value in self.models.values())
    return list(dict.fromkeys(flat))


def after(cells, folder, preset, done, say):
  """Measures the models of a grid that is done; the study calls it."""
  del done
  measure(cells, folder, experiment='gordon2020', preset=preset, say=say)


def measure(cells, folder, *, experiment, preset, say=console.say):
  """Measures what the ledger of a folder lacks, one row a measurement.

  A model that is missing (its folder was cleared, its cell failed) is named in a line, with what
  cannot be measured without it; the rest is measured.

  Args:
    cells: the cells of the grid, whose configs say where the text is.
    folder: the work directory.
    experiment, preset: columns of the rows.
    say: prints a line.

  Returns:
    The new rows.
  """
  folder = files.path(folder)
  rows = ledger.read(folder / 'ledger.jsonl')
  done = ledger.done(rows)
  there = functools.cache(
    lambda cell: files.exists(folder / 'cells' / cell / 'model' / 'config.json')
  )
  by_cell = {row['cell']: row for row in rows}
  check = functools.cache(lambda cell: dependencies.check_model(by_cell[cell], folder))
  configs = {grid.key(cell): cell.config for cell in cells}
  models = Models(folder, configs)
  left = [probe for probe in plan(rows) if probe.cell() not in done]
  lacking, new = {}, []
  for i, probe in enumerate(left, 1):
    gone = [cell for cell in probe.parents() if not there(cell)]
    if gone:
      lacking.setdefault(probe.name, []).extend(gone)
      continue
    say(f'[{i}/{len(left)}] probe {probe.name}: {probe.describe()}')
    began = time.perf_counter()
    for cell in probe.parents():
      check(cell)
    metrics = MEASURES[probe.name](models, **probe.models)
    row = {
      'cell': probe.cell(),
      'experiment': experiment,
      'preset': preset,
      'stage': 'probe',
      'probe': probe.name,
    }
    row |= {
      **probe.labels,
      'parent': probe.parents()[0],
      'parents': probe.parents(),
      'metrics': metrics,
    }
    row |= {
      'versions': grid.versions(),
      'device': grid.device(),
      'seconds': round(time.perf_counter() - began, 2),
    }
    row['time'] = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    ledger.append(folder / 'ledger.jsonl', row)
    new.append(row)
  for name, gone in lacking.items():
    few = list(dict.fromkeys(gone))
    say(
      f'probe {name}: left out where the models of {len(few)} cells are missing '
      f'({", ".join(few[:4])}, ...)'
    )
  return new


def plan(rows):
  """The `Probe`s that the finished rows of a grid allow."""
  known = [row for row in rows if not row.get('failed')]
  pre = {}
  for row in known:
    if row['stage'] == 'pretrain' and (
      row['arm'] in ('dense', *PRUNED) or row['arm'].startswith('switch:')
    ):
      pre[row['arm'], float(row['sparsity']), row['seed']] = row['cell']
  tuned = [
    row
    for row in known
    if row['stage'] == 'finetune'
    and row['arm'] in TUNED
    and row.get('parent')
    and row.get('config', {}).get('keep_model', True)
  ]
  seeds = sorted({seed for arm, _, seed in pre if arm == 'dense'})
  levels = sorted({s for arm, s, _ in pre if arm in PRUNED})
  # {sparsity: cell}; keys are text, since they are hashed as JSON.
  methods = sorted({arm for arm, _, _ in pre if arm.startswith('switch:')})
  by = lambda arm, seed: {str(s): pre[arm, s, seed] for s in levels if (arm, s, seed) in pre}
  probes = []

  def add(name, labels, **models):
    probes.append(
      Probe(
        name, {'arm': 'dense', 'sparsity': 0.0, 'task': '', 'learning_rate': None, **labels}, models
      )
    )

  for seed in seeds:
    dense = pre['dense', 0.0, seed]
    add('weights', {'seed': seed}, model=dense)
    add('embeddings', {'seed': seed}, model=dense)
    for arm in PRUNED:
      if by(arm, seed):
        for name in ('heads', 'words', 'nesting'):
          add(name, {'seed': seed, 'arm': arm}, masks=by(arm, seed))
        add('features', {'seed': seed, 'arm': arm}, dense=dense, others=by(arm, seed))
    if by('pruned', seed):
      add(
        'overlap',
        {'seed': seed, 'arm': 'pruned', 'against': 'dense'},
        first=by('pruned', seed),
        second=dense,
      )
    if by('pruned', seed) and by('random', seed):
      add(
        'overlap',
        {'seed': seed, 'arm': 'pruned', 'against': 'random'},
        first=by('pruned', seed),
        second=by('random', seed),
      )
    for arm in methods:
      other = {str(s): cell for (name, s, at), cell in pre.items() if (name, at) == (arm, seed)}
      both = [s for s in sorted(other, key=float) if s in by('pruned', seed)]
      if both:
        add(
          'overlap',
          {'seed': seed, 'arm': arm, 'against': 'pruned'},
          first={s: other[s] for s in both},
          second={s: by('pruned', seed)[s] for s in both},
        )
  for a, b in itertools.combinations(seeds, 2):
    add(
      'features',
      {'seed': a, 'against': f'seed {b}'},
      dense=pre['dense', 0.0, a],
      others={'0.0': pre['dense', 0.0, b]},
    )
    for arm in PRUNED:
      both = by(arm, a).keys() & by(arm, b).keys()
      if both:
        pick = lambda seed, arm=arm, both=both: {
          s: cell for s, cell in by(arm, seed).items() if s in both
        }
        add(
          'overlap', {'seed': a, 'arm': arm, 'against': f'seed {b}'}, first=pick(a), second=pick(b)
        )
  _of_tuned(tuned, by, levels, add)
  return probes


def _of_tuned(tuned, by, levels, add):
  """Measurements on fine-tuned dense models, which the arm 'after' prunes in one shot."""
  after = {}
  for row in tuned:
    labels = {k: row[k] for k in ('arm', 'task', 'learning_rate', 'seed')}
    labels |= {'epochs': row['epochs']} if 'epochs' in row else {}
    seed = row['seed']
    add('movement', labels, before=row['parent'], after=row['cell'])
    at = sorted({str(s) for s in (*levels, measures.FEW)}, key=float)
    add(
      'difference',
      labels,
      before=row['parent'],
      after=row['cell'],
      masks=by('pruned', seed),
      sparsities=at,
    )
    if row['arm'] != 'epochs':
      after.setdefault(row['arm'], {})[row['task'], row['learning_rate'], seed] = row['cell']
  # The arm 'after' starts from 'before' in a preset with a burn-in, else from 'dense'.
  chosen = after.get('before') or after.get('dense') or {}
  levels = [str(s) for s in levels]
  for (task, rate, seed), cell in chosen.items():
    labels = {'arm': 'after', 'task': task, 'learning_rate': rate, 'seed': seed}
    if by('pruned', seed):
      add('overlap', {**labels, 'against': 'pruned'}, first=by('pruned', seed), second=cell)
    for (other, its_rate, its_seed), its_cell in chosen.items():
      if (
        levels
        and rate == its_rate
        and (other > task and its_seed == seed or other == task and its_seed > seed)
      ):
        against = other if other != task else f'seed {its_seed}'
        add(
          'overlap', {**labels, 'against': against}, first=cell, second=its_cell, sparsities=levels
        )


def _cells(value):
  if isinstance(value, str):
    return [value]
  return [] if isinstance(value, list) else list(value.values())


class Models:
  """The models of a grid, read on demand; the last few stay in memory."""

  def __init__(self, folder, configs):
    self.folder, self.configs = folder, configs
    self.path = functools.lru_cache(4)(self._path)
    self.weights = functools.lru_cache(4)(self._weights)
    self.masks = functools.lru_cache(32)(lambda cell: mask_overlap.from_zeros(self.weights(cell)))
    self.text = functools.lru_cache(1)(self._text)
    self.read = functools.lru_cache(1)(lambda size: hidden_states.reader(families.make(size, ())))

  def _path(self, cell):
    """The local folder of a cell's model."""
    return files.local(self.folder / 'cells' / cell / 'model')

  def tree(self, cell):
    """A cell's parameters without heads, a nested dict."""
    return families.in_folder(self.path(cell)).files.load(self.path(cell), heads=())[0]

  def _weights(self, cell):
    """{path: weights} of the leaves that the grid prunes."""
    leaves = traverse_util.flatten_dict(self.tree(cell), sep='/')
    chosen = paths.matches(bert.PRUNABLE)
    return {path: leaf for path, leaf in leaves.items() if chosen(path, leaf)}

  def sized(self, cell):
    """The size of a cell's model, as JSON."""
    kind = families.in_folder(self.path(cell))
    return families.read_only(kind, kind.files.read_size(self.path(cell))).to_json_string(
      use_diff=False
    )

  def _text(self, cell):
    """Held-out batches of plain text, those of a pre-training cell."""
    config = self.configs[cell]
    c = config.data
    kind = families.in_folder(self.path(cell))
    data = inputs.pretraining_data(
      kind.words.load(self.path(cell)),
      configs.text_names(c.corpus, c.task, c.pydoc)[0],
      kind.recipe(c),
      root=c.root or None,
      cache=c.cache or None,
      encoding=c.encoding,
      seed=0,
      how=kind.examples,
      batch_size=1,
      eval_batches=config.eval.batches,
      eval_size=config.eval.batch_size,
    )
    return hidden_states.text(data.held_out(), TOKENS)


def _features(models, dense, others):
  read, batches, params = models.read(models.sized(dense)), models.text(dense), models.tree(dense)
  states = [np.asarray(read(params, batch)) for batch in batches]
  likenesses = {
    float(s): hidden_states.compare(read, models.tree(cell), states, batches)
    for s, cell in others.items()
  }
  out = {
    'sparsity': sorted(likenesses),
    'cosine': [],
    'deviation': [],
    'tokens': next(iter(likenesses.values()))[2],
  }
  for s in sorted(likenesses):
    out['cosine'].append([measures.few(v, 5) for v in likenesses[s][0]])
    out['deviation'].append([measures.few(v, 3) for v in likenesses[s][1]])
  return out


def _difference(models, before, after, masks, sparsities):
  known = {float(s): models.masks(cell) for s, cell in masks.items()}
  return measures.fine_tuned(
    models.weights(before), models.weights(after), known, [float(s) for s in sparsities]
  )


def _overlap(models, first, second, sparsities=()):
  levels = sorted(sparsities or (first if isinstance(first, dict) else second), key=float)
  at = lambda which, s: (
    mask_overlap.magnitude(models.weights(which), float(s))
    if isinstance(which, str)
    else models.masks(which[s])
  )
  levels = [
    s for s in levels if all(isinstance(which, str) or s in which for which in (first, second))
  ]
  return measures.shared(
    [(at(first, s), at(second, s)) for s in levels], [float(s) for s in levels]
  )


def _words(models, masks):
  pieces = hf_directory.read_vocab(models.path(next(iter(masks.values()))))
  return measures.of_words(
    {float(s): models.masks(cell)[measures.WORDS] for s, cell in masks.items()}, pieces
  )


def _heads(models, masks):
  count = families.parsed(models.sized(next(iter(masks.values())))).num_attention_heads
  return measures.of_heads({float(s): models.masks(cell) for s, cell in masks.items()}, count)


MEASURES = {
  'features': _features,
  'difference': _difference,
  'overlap': _overlap,
  'words': _words,
  'heads': _heads,
  'movement': lambda models, before, after: measures.moved(
    models.weights(before), models.weights(after)
  ),
  'weights': lambda models, model: measures.spread(models.weights(model)),
  'embeddings': lambda models, model: measures.heat(models.weights(model)[measures.WORDS]),
  'nesting': lambda models, masks: measures.nested(
    {float(s): models.masks(cell) for s, cell in masks.items()}
  ),
}
