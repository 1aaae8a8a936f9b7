"""The tables and the figure of the report, from the ledger."""

from experiments.spdf2023.claims import by_seed, losses
from prunejax.report import drawing
from prunejax.report import tables as tabular
from prunejax.report.verdicts import shown

ARMS = {
  'dense': ('fine-tuned dense', '#1b6ca8'),
  'sparse': ('fine-tuned sparse', '#d1495b'),
}
CAPTIONS = {
  'losses': (
    'Held-out loss against the sparsity of pre-training: after pre-training (left) and after '
    'fine-tuning, dense or with the zeros held (right). Bars span the seeds; the dotted line is a '
    'model with new weights.'
  )
}


def tables(rows: list[dict]) -> list[tabular.Table]:
  """Tabulate the losses of both stages, and accuracies where the tasks have labels."""
  lines, first = [], losses(rows, 'finetune', 'dense', 0.0)
  kinds = [('dense', s) for s in _sparsities(rows)] + [('sparse', s) for s in _sparsities(rows)[1:]]
  for arm, sparsity in [*kinds, ('fresh', 0.0)]:
    tuned = losses(rows, 'finetune', arm, sparsity)
    if not tuned:
      continue
    before = losses(rows, 'pretrain', 'sparse' if sparsity else 'dense', sparsity)
    accuracies = [
      row['metrics']['accuracy']
      for row in rows
      if (row['stage'], row['arm'], row['sparsity']) == ('finetune', arm, sparsity)
      and 'accuracy' in row['metrics']
    ]
    rise = list(by_seed(tuned, first).values())
    lines.append(
      {
        'pre-training': 'none' if arm == 'fresh' else f'{sparsity:g} sparse',
        'fine-tuning': 'dense' if arm == 'fresh' else arm,
        'seeds': len(tuned),
        'products of kernels': '-' if arm == 'fresh' else f'{1 - sparsity:.0%}',
        'pre-training loss': '-' if arm == 'fresh' else shown(list(before.values())),
        'loss on the task': shown(list(tuned.values())),
        'minus dense': '-' if (arm, sparsity) == ('dense', 0.0) else shown(rise, '+.3f'),
        **({'accuracy': shown(accuracies)} if accuracies else {}),
      }
    )
  tasks = ', '.join(sorted({row['task'] for row in rows if row['task']}))
  note = (
    f'Held-out losses, nats; the task is {tasks}. Products of kernels: of a dense pre-training, in '
    'the matrices of the layers.'
  )
  return [tabular.records('Pre-training and fine-tuning', lines, note)]


def _sparsities(rows):
  return sorted({row['sparsity'] for row in rows if row['stage'] == 'pretrain'})


def figures(rows: list[dict]) -> dict[str, bytes]:
  """Draw {'losses': PNG}."""
  levels = _sparsities(rows)
  with drawing.canvas(10, 4.2, 2) as (figure, panels):
    before = {s: losses(rows, 'pretrain', 'sparse' if s else 'dense', s) for s in levels}
    _line(panels[0], before, 'pre-trained', '#555555')
    for arm, (label, colour) in ARMS.items():
      after = {s: losses(rows, 'finetune', arm, s) for s in levels}
      _line(panels[1], after, label, colour)
    if fresh := losses(rows, 'finetune', 'fresh', 0.0):
      middle = sum(fresh.values()) / len(fresh)
      panels[1].axhline(middle, color='#555555', ls=':', label='new weights')
    for axes, title in zip(panels, ('after pre-training', 'after fine-tuning'), strict=True):
      axes.set(xlabel='sparsity of pre-training', title=title)
    panels[0].set_ylabel('held-out loss, nats')
    drawing.below(figure, *panels, columns=4)
    return {'losses': drawing.png(figure)}


def _line(axes, by_sparsity, label, colour):
  """Draw the mean at each sparsity, with bars that span the seeds."""
  known = {s: list(values.values()) for s, values in by_sparsity.items() if values}
  if known:
    middle, reach = drawing.ranges(known.values())
    axes.errorbar(
      list(known),
      middle,
      yerr=reach,
      marker='o',
      markeredgecolor='white',
      capsize=3,
      color=colour,
      label=label,
    )
