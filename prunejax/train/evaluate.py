"""Held-out scores: sums over batches for pre-training, the tasks' own metrics for fine-tuning."""

from collections.abc import Callable

import jax
import numpy as np

import prunejax
from prunejax.data import squad
from prunejax.pruning import placement

TOKENS = 1024  # of a part


def on_one_cpu() -> bool:
  """Returns whether JAX computes on a single CPU device."""
  return jax.default_backend() == 'cpu' and jax.device_count() == 1


def in_parts(predict: Callable) -> Callable:
  """Makes `predict` take a batch in parts of at most `TOKENS` tokens where there is one CPU device.

  The results are those of the whole batch but for rounding, which depends on the rows of a call.
  The arrays of a large batch are mapped and given back at each call, and fit no cache: parts of 32
  rows of 32 tokens take two thirds of the time of 256 rows. Accelerators want large batches. A row
  that is longer than a part is one of its own.

  Args:
    predict: (params, batch) -> a tree of arrays with a row for each row of the batch.
  """

  def call(params, batch):
    count, length = batch['input_ids'].shape
    most = max(TOKENS // length, 1)
    rows = max(n for n in range(1, min(most, count) + 1) if count % n == 0)
    # A prime number of rows has only parts of one row, which would take longer than the batch.
    if rows == count or 2 * rows < most or not on_one_cpu():
      return predict(params, batch)
    split = lambda x: x.reshape(-1, rows, *x.shape[1:])
    join = lambda x: x.reshape(-1, *x.shape[2:])
    parts = jax.lax.map(lambda part: predict(params, part), jax.tree.map(split, batch))
    return jax.tree.map(join, parts)

  return call


def scores(state, data, program, layout) -> dict:
  """Held-out scores of a state; of a task also the loss on what it was trained on.

  Args:
    state: of one run.
    data: its `inputs.Data`.
    program: its `program.Program`.
    layout: batch -> the same on the devices.

  Returns:
    {name: float}.
  """
  measure = lambda params, batch: jax.tree.map(
    placement.on_host, program.measure(params, layout(batch))
  )
  masks = prunejax.get_masks(state['opt_state'], state['params'], unpruned=True)
  params = program.view(state['params'], masks)
  if not data.task:
    return pretraining(measure, params, data.held_out())
  if data.task.spans:
    held_out, logits = spans(measure, params, data.held_out(), len(data.questions[1].question))
    answers = squad.best(data.questions[1], logits, data.questions[0])
    fit = _mean_loss(measure, params, data.train_set())
    return {
      'dev_loss': held_out,
      **squad.score(answers, data.questions[0]),
      'train_loss': fit,
    }
  regression = not data.task.classes
  held_out = finetuning(measure, params, data.held_out(), data.task.metrics, regression)
  fit = finetuning(measure, params, data.train_set(), (), regression)
  others = {}
  for prefix, batches in (data.others or {}).items():
    other = finetuning(measure, params, batches(), data.task.metrics, regression)
    others |= {f'{prefix}_{metric}': other[metric] for metric in data.task.metrics}
  floor = {} if regression else {'majority': data.majority}
  return {
    'dev_loss': held_out.pop('loss'),
    **held_out,
    **others,
    'train_loss': fit['loss'],
    **floor,
  }


def accuracy(guess, label) -> float:
  """Returns the share of right guesses."""
  return float(np.mean(guess == label))


def f1(guess, label) -> float:
  """Returns the F1 of class 1; 0 if no guess is right."""
  hit = np.sum((guess == 1) & (label == 1))
  return float(2 * hit / max(np.sum(guess == 1) + np.sum(label == 1), 1))


def matthews(guess, label) -> float:
  """Returns the Matthews correlation (Gorodkin 2004 for many classes); 0 if a side is constant."""
  classes = max(int(guess.max()), int(label.max())) + 1
  table = np.zeros((classes, classes), np.int64)
  np.add.at(table, (label, guess), 1)
  labels, guesses, n = table.sum(1), table.sum(0), table.sum()
  covariance = float(np.trace(table) * n - labels @ guesses)
  spread = np.sqrt(float(n * n - guesses @ guesses)) * np.sqrt(float(n * n - labels @ labels))
  return float(covariance / spread) if spread else 0.0


def pearson(guess, label) -> float:
  """Returns Pearson's correlation; 0 if a side is constant."""
  from scipy import stats  # imported here, since it takes longer than to refuse a config

  return _correlation(stats.pearsonr, guess, label)


def spearman(guess, label) -> float:
  """Returns Spearman's rank correlation; 0 if a side is constant."""
  from scipy import stats

  return _correlation(stats.spearmanr, guess, label)


def _correlation(statistic, guess, label):
  # A constant prediction has no correlation. It predicts nothing, so it counts as 0.
  guess, label = np.asarray(guess, np.float64), np.asarray(label, np.float64)
  return float(statistic(guess, label).statistic) if np.ptp(guess) and np.ptp(label) else 0.0


METRICS = {f.__name__: f for f in (accuracy, f1, matthews, pearson, spearman)}


def pretraining(sums, params, batches):
  """Returns the mean losses and accuracies over batches; 'loss' is the sum of the losses.

  Args:
    sums: (params, batch) -> {name: (sum, count)}, see objectives.py.
    params: the parameters.
    batches: an iterable of batches.
  """
  total = {}
  for batch in batches:
    for name, (value, count) in sums(params, batch).items():
      old = total.get(name, (0.0, 0.0))
      total[name] = (old[0] + float(value), old[1] + float(count))
  means = {name: value / max(count, 1) for name, (value, count) in total.items()}
  return {'loss': sum(mean for name, mean in means.items() if name.endswith('_loss')), **means}


def spans(predict, params, batches, rows):
  """Returns the mean loss over batches of windows, and the logits of all windows in their order.

  Args:
    predict: (params, batch) -> (losses [b], logits [b, length, 2]).
    params: the parameters.
    batches: an iterable of batches, whose 'row' numbers the windows and whose 'real' is 0 in the
      rows that only pad the last batch. They may differ in length.
    rows: the number of windows.

  Returns:
    (mean loss, float32 [rows, longest length, 2]); logits that no batch has are the lowest number.
  """
  losses, parts = [], []
  for batch in batches:
    real = np.asarray(batch['real']) > 0
    loss, out = predict(params, {k: v for k, v in batch.items() if k != 'real'})
    losses.append(np.asarray(loss)[real])
    parts.append((np.asarray(batch['row'])[real], np.asarray(out)[real]))
  longest = max(out.shape[1] for _, out in parts)
  logits = np.full((rows, longest, 2), np.finfo(np.float32).min, np.float32)
  for row, out in parts:
    logits[row, : out.shape[1]] = out
  return float(np.concatenate(losses).mean()), logits


def _mean_loss(predict, params, batches):
  """The mean loss over batches of windows; the logits are given up batch by batch."""
  losses = []
  for batch in batches:
    real = np.asarray(batch['real']) > 0
    loss, _ = predict(params, {k: v for k, v in batch.items() if k != 'real'})
    losses.append(np.asarray(loss)[real])
  return float(np.concatenate(losses).mean())


def finetuning(predict, params, batches, metrics, regression=False):
  """Returns {'loss', and each of `metrics`} over batches.

  Args:
    predict: (params, batch) -> (losses [b], outputs [b, n]), see objectives.py.
    params: the parameters.
    batches: an iterable of batches, whose 'real' is 0 in the rows that only pad the last batch.
    metrics: names of METRICS.
    regression: the task is a regression.
  """
  losses, outputs, labels = [], [], []
  for batch in batches:
    real = np.asarray(batch['real']) > 0
    loss, out = predict(params, {k: v for k, v in batch.items() if k != 'real'})
    losses.append(np.asarray(loss)[real])
    outputs.append(np.asarray(out)[real])
    labels.append(np.asarray(batch['label'])[real])
  output, label = np.concatenate(outputs), np.concatenate(labels)
  guess = output[:, 0] if regression else output.argmax(-1)
  return {
    'loss': float(np.concatenate(losses).mean()),
    **{m: METRICS[m](guess, label) for m in metrics},
  }
