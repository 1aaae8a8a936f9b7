"""Probes on made-up models: what they measure, that they measure once, that a ledger redraws."""

import functools
import json
import re
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs
from flax import traverse_util

from experiments.gordon2020 import paper
from experiments.gordon2020.analysis import (
  hidden_states,
  mask_overlap,
  measures,
  movement,
  probe_rows,
  probe_tables,
  probes,
)
from prunejax.data import wordpiece
from prunejax.models import bert
from prunejax.models.hf import bert as bert_hf
from prunejax.models.hf import gpt2 as gpt2_hf
from prunejax.report import ledger, tables
from prunejax.sweep import grid
from prunejax.train import families, inputs

LEVELS = (0.3, 0.6)
TASKS = ('glue/cola', 'glue/sst2')


@functools.cache
def source():
  size = {k.removeprefix('model.'): v for k, v in tiny_runs.SIZE.items()} | {'num_hidden_layers': 2}
  root = str(tiny_runs.home())
  return inputs.source('', size, '', 120, 'text', root, root + '/cache')


def drawn(seed):
  """A model's parameters, flat: normal numbers, but for the scales of its norms."""
  rng = np.random.default_rng(seed)
  shapes = bert_hf._shapes(source().size, ('mlm', 'nsp'))
  return {
    path: (0.25 * rng.normal(size=shape) + path.endswith('scale')).astype(np.float32)
    for path, shape in shapes.items()
  }


def near(leaves, seed, by):
  rng = np.random.default_rng(seed)
  return {
    path: (w + by * w.std() * rng.normal(size=w.shape)).astype(np.float32)
    for path, w in leaves.items()
  }


def prunable(leaves):
  return {path: w for path, w in leaves.items() if re.fullmatch(bert.PRUNABLE, path)}


def pruned(leaves, s, seed=None):
  scores = prunable(leaves if seed is None else near(leaves, seed, 100.0))
  return leaves | {
    path: leaves[path] * mask for path, mask in mask_overlap.magnitude(scores, s).items()
  }


def made(folder):
  """A finished grid of two seeds, never trained: models, ledger; (cells, models by six labels)."""
  cells, models = [], {}

  def add(labels, leaves, parent=None, accuracy=0.8):
    cell = grid.Cell(
      labels, tiny_runs.config(pruned=False, seed=len(cells), data__corpus='text'), parent
    )
    key = grid.key(cell)
    metrics = {'accuracy': accuracy} if labels['task'] else {'loss': 4.0}
    row = {
      'cell': key,
      'experiment': 'gordon2020',
      'preset': 'smoke',
      **labels,
      'parent': parent,
      'metrics': metrics,
    }
    ledger.append(folder / 'ledger.jsonl', {**row, 'config': {'keep_model': leaves is not None}})
    if leaves is not None:
      tree, vocab = (
        traverse_util.unflatten_dict(leaves, sep='/'),
        wordpiece.pieces(source().tokenizer),
      )
      bert_hf.save(folder / 'cells' / key / 'model', tree, source().size, vocab=vocab)
    cells.append(cell)
    models[tuple(labels.values())[:6]] = key, leaves
    return key

  base = drawn(0)
  for seed in (0, 1):
    pre = lambda arm, s, leaves, seed=seed: add(
      {
        'stage': 'pretrain',
        'arm': arm,
        'sparsity': s,
        'task': '',
        'seed': seed,
        'learning_rate': 1e-3,
      },
      leaves,
    )
    dense = near(base, seed, 0.1)
    start = pre('dense', 0.0, dense)
    for s in LEVELS:
      pre('pruned', s, pruned(near(dense, 10 + seed, 0.05), s))
      pre('random', s, pruned(dense, s, seed=20 + seed))
    pre('switch:latent', 0.6, pruned(near(dense, 30, 0.1), 0.6))
    for i, task in enumerate(TASKS):
      tune = lambda arm, s, leaves, seed=seed, task=task, start=start, **more: add(
        {
          'stage': 'finetune',
          'arm': arm,
          'sparsity': s,
          'task': task,
          'seed': seed,
          'learning_rate': 5e-5,
          **more,
        },
        leaves,
        start,
        0.8 - s * s / 4,
      )
      tune('dense', 0.0, near(dense, 40 + i, 0.1), epochs=2)  # as long as the grid itself trains
      for s in LEVELS:
        tune('pruned', s, None)
      for epochs in (1, 3):
        tune('epochs', 0.0, near(dense, 50 + i, 0.05 * epochs), epochs=epochs)
        tune('after epochs', 0.6, None, epochs=epochs)
  return cells, models


@pytest.fixture(scope='module')
def grid_of(tmp_path_factory):
  folder = tmp_path_factory.mktemp('probes')
  cells, models = made(folder)
  lines = []
  new = probes.measure(cells, folder, experiment='gordon2020', preset='smoke', say=lines.append)
  return folder, cells, models, new, lines


def test_each_once_and_small(grid_of):
  folder, cells, _, new, lines = grid_of
  assert {row['probe'] for row in new} == set(probes.MEASURES) and len(lines) == len(new)
  assert len({row['cell'] for row in new}) == len(new)
  again = probes.measure(cells, folder, experiment='gordon2020', preset='smoke', say=lines.append)
  assert again == [] and len(lines) == len(new)
  for row in new:
    assert len(json.dumps(row)) < 4096 and row['versions'] and row['parents'][0] == row['parent']
    assert set(row['parents']) <= {grid.key(cell) for cell in cells}
  assert [
    row for row in ledger.read(folder / 'ledger.jsonl') if row['stage'] == 'probe'
  ] == json.loads(json.dumps(new))


def test_movement_and_masks_of_fine_tuned_models(grid_of):
  folder, _, models, new, _ = grid_of
  _, before = models['pretrain', 'dense', 0.0, '', 1, 1e-3]
  _, after = models['finetune', 'dense', 0.0, 'glue/sst2', 1, 5e-5]
  (row,) = probe_rows.of(new, 'movement', arm='dense', task='glue/sst2', seed=1)
  moved = [
    np.abs(movement.ranks(after[p]) - movement.ranks(before[p])).ravel() / after[p].size
    for p in prunable(after)
    if 'embeddings' not in p
  ]
  assert row['metrics']['mean'] == pytest.approx(np.concatenate(moved).mean(), rel=1e-3)
  assert row['metrics']['std'] == pytest.approx(np.concatenate(moved).std(), rel=1e-3)
  assert (
    len(row['metrics']['by_magnitude']) == 100 and len(row['metrics']['kinds']['ffn/output']) == 2
  )
  (row,) = probe_rows.of(new, 'difference', arm='dense', task='glue/sst2', seed=1)
  _, at = models['pretrain', 'pruned', 0.6, '', 1, 1e-3]
  differ = lambda a, b: sum((a[p] != b[p]).sum() for p in a) / sum(a[p].size for p in a)
  tuned = mask_overlap.magnitude(prunable(after), 0.6)
  index = row['metrics']['sparsity'].index(0.6)
  assert row['metrics']['pruned'][index] == pytest.approx(
    differ(tuned, mask_overlap.from_zeros(prunable(at))), rel=1e-3
  )
  start = differ(tuned, mask_overlap.magnitude(prunable(before), 0.6))
  assert row['metrics']['start'][index] == pytest.approx(start, rel=1e-3)
  assert row['metrics']['chance'][index] == pytest.approx(0.48, abs=1e-3)


def test_more_epochs_move_more(grid_of):
  *_, new, _ = grid_of
  means = [
    [r['metrics']['mean'] for r in probe_rows.of(new, 'movement', arm='epochs', epochs=n)]
    for n in (1, 3)
  ]
  assert max(means[0]) < min(means[1])


def test_overlaps_know_chance_from_kinship(grid_of):
  *_, new, _ = grid_of
  of = lambda **labels: probe_rows.of(new, 'overlap', **labels)
  for row in of(arm='random', against='seed 1') + of(arm='pruned', against='random'):
    assert all(abs(z) < 4 for z in row['metrics']['z'])
  kin = (
    of(arm='pruned', against='dense')
    + of(arm='after', against='pruned')
    + of(arm='after', against='glue/sst2')
  )
  kin += of(arm='switch:latent', against='pruned') + of(arm='pruned', against='seed 1')
  assert len(kin) == 2 + 4 + 2 + 2 + 1 and all(min(row['metrics']['z']) > 10 for row in kin)
  for row in probe_rows.of(new, 'nesting', arm='pruned'):
    assert row['metrics']['nested'] == [1.0] and row['metrics']['expected'] == [
      pytest.approx(0.7, abs=0.01)
    ]


def test_features_of_pruned_models_drift(grid_of):
  folder, _, models, new, _ = grid_of
  (row,) = probe_rows.of(new, 'features', arm='pruned', seed=0)
  first, second = np.array(row['metrics']['cosine'])
  assert (
    first.shape == (3,)
    and (second < first).all()
    and (first < 1).all()
    and row['metrics']['tokens'] > 50
  )
  (other,) = probe_rows.of(new, 'features', arm='dense', against='seed 1')
  assert other['seed'] == 0 and len(other['metrics']['cosine'][0]) == 3


def test_hidden_states_are_what_the_layers_say():
  size, flat = source().size, drawn(3)
  params = traverse_util.unflatten_dict(flat, sep='/')
  rng = np.random.default_rng(0)
  batch = {
    'input_ids': rng.integers(0, 100, (3, 8)),
    'segment_ids': rng.integers(0, 2, (3, 8)),
    'valid': np.arange(8) < np.array([[8], [5], [2]]),
  }
  model = bert.Bert(size, ())
  states = hidden_states.reader(model)(params, batch)
  assert states.shape == (3, 3, 8, 16) and states.dtype == jnp.float32
  embed, *_ = bert.initializers('fan_in', size)
  for i, shape in enumerate(bert.widths(size)):
    layer = bert.Layer(size, jnp.float32, embed, shape)
    step = layer.apply({'params': params['encoder'][f'layer_{i}']}, states[i], batch['valid'], True)
    assert np.allclose(step, states[i + 1], atol=1e-5)
  plain = model.apply(
    {'params': params}, *(batch[k] for k in ('input_ids', 'segment_ids', 'valid'))
  )
  assert np.allclose(plain['sequence'], states[-1], atol=1e-5)
  with pytest.raises(ValueError, match='no module of Bert'):
    hidden_states.hidden_states(model, params, batch, 'block_.*')


def test_plain_text_has_its_words_back():
  root, recipe = str(tiny_runs.home()), inputs.pretraining.Recipe(16, 0.3, 5)
  make = lambda rate: inputs.pretraining_data(
    source().tokenizer,
    'text',
    recipe._replace(rate=rate),
    root=root,
    cache=root + '/cache',
    seed=0,
    batch_size=8,
    eval_batches=2,
    eval_size=8,
  )
  hidden = list(make(0.3).held_out())
  chosen = hidden_states.text(hidden, 10**9)
  blank = source().tokenizer.token_to_id('[MASK]')
  assert len(chosen) == 2 and any((batch['input_ids'] == blank).any() for batch in hidden)
  assert not any((batch['input_ids'] == blank).any() for batch in chosen)
  assert len(hidden_states.text(hidden, 1)) == 1


def test_a_missing_model_is_told_and_the_rest_is_measured(grid_of, tmp_path, monkeypatch):
  folder, cells, models, *_ = grid_of
  cell, _ = models['finetune', 'dense', 0.0, 'glue/cola', 0, 5e-5]
  shutil.copytree(folder / 'cells', tmp_path / 'cells')
  for row in ledger.read(folder / 'ledger.jsonl'):
    if row['stage'] != 'probe':
      ledger.append(tmp_path / 'ledger.jsonl', row)
  (tmp_path / 'cells' / cell / 'model' / 'config.json').unlink()
  lines = []
  monkeypatch.setattr(
    probes, 'MEASURES', dict.fromkeys(probes.MEASURES, lambda models, **roles: {'sparsity': []})
  )
  new = probes.measure(cells, tmp_path, experiment='gordon2020', preset='smoke', say=lines.append)
  told = [line for line in lines if 'left out' in line]
  assert {line.split()[1].rstrip(':') for line in told} == {'movement', 'difference', 'overlap'}
  assert all(cell in line for line in told)
  assert not probe_rows.of(new, 'movement', arm='dense', task='glue/cola', seed=0)
  assert probe_rows.of(new, 'movement', arm='dense', task='glue/cola', seed=1)


def test_the_ledger_alone_redraws_everything(grid_of, tmp_path):
  folder, *_ = grid_of
  (tmp_path / 'ledger.jsonl').write_bytes((folder / 'ledger.jsonl').read_bytes())
  rows = ledger.read(tmp_path / 'ledger.jsonl')
  found, figures = probe_tables.shown(rows, rows), probe_tables.figures(rows, rows)
  assert (
    set(figures)
    == set(probe_tables.CAPTIONS)
    == {
      'figure2b',
      'figure3a',
      'figure3b',
      'figure4',
      'figure6',
      'figure8',
      'heads',
      'overlap',
      'drift',
    }
  )
  assert all(data.startswith(b'\x89PNG') and len(data) > 20_000 for data in figures.values())
  text = {table.title.partition(':')[0]: tables.text(table) for table in found}
  assert (
    len(re.findall(r'glue/sst2 +5e-05 +(?:2|as the grid) +2 ', text['Table 2'])) == 2
  )  # it counts as both
  # SST-2 at 5e-5 in the paper, and after three epochs.
  assert re.search(r'glue/sst2 +5e-05 +as the grid +2 +\S+ ± \S+ .* 2\.38 +2\.29', text['Table 2'])
  assert re.search(r'glue/sst2 +5e-05 +3 .* 2\.41 +-', text['Table 2'])
  assert re.search(r'embeddings/word .* -0\.0282 .* 0\.042', text['Table 3'])
  assert 'switch:latent, pruned' in text['Weights that two masks both keep']


def test_nothing_is_drawn_without_probes():
  assert probe_tables.shown([], []) == [] and probe_tables.figures([], []) == {}


def test_the_later_of_two_rows_counts():
  row = lambda n, **more: {
    'stage': 'probe',
    'probe': 'x',
    'arm': 'a',
    'seed': 0,
    'metrics': n,
    **more,
  }
  assert [r['metrics'] for r in probe_rows.of([row(1), row(2, task='t'), row(3)], 'x')] == [3, 2]


def test_over_counts_a_seed_once():
  row = lambda seed, task, values: {
    'arm': 'a',
    'seed': seed,
    'task': task,
    'learning_rate': None,
    'metrics': {'sparsity': [0.1, 0.2], 'v': values},
  }
  table = probe_rows.over([row(0, 's', [1, None]), row(0, 't', [3, 5]), row(1, 's', [6, 7])], 'v')
  assert probe_rows.by_seed(table['a', 0.1]) == {0: 2.0, 1: 6.0} and probe_rows.by_seed(
    table['a', 0.2]
  ) == {0: 5.0, 1: 7.0}
  assert probe_rows.curves(table)['a'][0.1].mean == 4.0


def test_paper_movement_is_as_printed():
  assert paper.TABLE2[3e-5]['QNLI'] == (1.79, 1.69) and paper.FIGURE4['CoLA'][-1] == 1.17
  means = [
    [paper.TABLE2[rate][task][0] for rate in (2e-5, 3e-5, 4e-5, 5e-5)] for task in paper.TASKS
  ]
  assert all(line == sorted(line) for line in means)
  assert paper.task('tfds/glue/sst2') == 'SST-2' and paper.task('pydoc/order') is None


def test_few_digits_and_kinds():
  assert (
    measures.few(0.123456) == 0.1235
    and measures.few(float('nan')) is None
    and measures.few(np.int64(7)) == 7
  )
  paths = [
    'encoder/layer_10/ffn/output/kernel',
    'encoder/layer_2/ffn/output/kernel',
    'pooler/kernel',
  ]
  assert measures.kinds(paths) == {'ffn/output': paths[1::-1], 'pooler': paths[2:]}


def test_a_decoder_is_measured_like_an_encoder(tmp_path):
  root, size = (
    str(tiny_runs.home()),
    {k.removeprefix('model.'): v for k, v in tiny_runs.SIZE.items()},
  )
  made = inputs.source('', size, '', 300, 'text', root, root + '/cache', kind='gpt2')
  rng = np.random.default_rng(0)
  shapes = gpt2_hf._shapes(made.size, ('lm',))
  leaves = {path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}
  for name, s in (('a', 0.0), ('b', 0.5)):
    tree = traverse_util.unflatten_dict(pruned(leaves, s), sep='/')
    families.save(tmp_path / 'cells' / name / 'model', tree, made.size, made.tokenizer)
  models = probes.Models(tmp_path, {'a': tiny_runs.config(pruned=False)})
  masks = {'masks': {'0.5': 'b'}}
  assert probes.MEASURES['heads'](models, **masks)['expected'] == [0.5]
  assert set(probes.MEASURES['words'](models, **masks)['kinds']) >= {'word starts', 'inner pieces'}
  cosine = probes.MEASURES['features'](models, dense='a', others={'0.0': 'a', '0.5': 'b'})['cosine']
  assert cosine[0] == pytest.approx([1, 1]) and max(cosine[1]) < 0.999
