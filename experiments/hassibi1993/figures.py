"""Accuracy and error against the weights that are left, a line a method."""

import numpy as np

from experiments.hassibi1993 import paper
from experiments.hassibi1993.claims import PROBLEMS, pick
from prunejax.report import drawing

COLOURS = {'obs': '#c0392b', 'obd': '#2471a3', 'magnitude': '#7d8b33'}
NAMES = {'obs': 'OBS', 'obd': 'OBD', 'magnitude': 'magnitude'}


def figures(rows):
  found = {p: curves(rows, p) for p in PROBLEMS if any(r['problem'] == p for r in rows)}
  return found | ({'xor': xor(rows)} if any(r['problem'] == 'xor' for r in rows) else {})


def curves(rows, problem):
  """Left: error on the training set; right: accuracy on all 432 points. Thin lines: seeds; thick: means."""
  with drawing.canvas(11, 4.4, 2) as (figure, axes):
    for method in dict.fromkeys(r['method'] for r in rows if r['problem'] == problem):
      kind, again = method.split(',')[0], 'retrained' in method
      look = {'color': COLOURS[kind], 'linestyle': '--' if again else '-'}
      each = list(pick(rows, problem, method).values())
      for panel, name in ((axes[0], 'error_curve'), (axes[1], 'test_curve')):
        lines = np.array([m[name] for m in each])
        removed = np.arange(lines.shape[1])
        if not again:
          panel.plot(removed, lines.T, linewidth=0.5, alpha=0.35, **look)
        label = NAMES[kind] + (', retrained' if again else '')
        panel.plot(removed, lines.mean(axis=0), linewidth=2, label=label, **look)
    theirs = paper.TABLE[problem]
    for panel in axes:
      panel.axvline(
        theirs['weights'] - theirs['left'],
        color='#999999',
        linewidth=1,
        linestyle=':',
        label=f'OBS in the paper: {theirs["left"]} of {theirs["weights"]} left',
      )
      panel.set_xlabel('weights removed')
    axes[0].set_ylabel('half the mean squared error, train')
    axes[1].set_ylabel('accuracy, all 432 points')
    axes[0].set_title(problem)
    drawing.below(figure, axes[0], columns=4)
    return drawing.png(figure)


def xor(rows):
  """The error after the first weight went and the others were trained on, for each net and method."""
  with drawing.canvas(8, 4, 1) as (figure, axes):
    every = pick(rows, 'xor', 'obs')
    place = {net: i for i, net in enumerate(every)}
    for net, m in every.items():
      axes[0].plot(
        [place[net]] * len(m['without_each']),
        m['without_each'],
        '_',
        color='#bbbbbb',
        markersize=14,
        label='each of the nine weights',
      )
    for shift, method in zip((-0.15, 0, 0.15), NAMES, strict=True):
      of = pick(rows, 'xor', method)
      chosen = [m['error_of_which'] for m in of.values()]
      axes[0].plot(
        [place[net] + shift for net in of],
        chosen,
        'o',
        color=COLOURS[method],
        label=f'chosen by {NAMES[method]}',
      )
    axes[0].set_yscale('log')
    axes[0].set_xlabel('trained net, by weight decay and seed')
    axes[0].set_ylabel('error without the weight, retrained')
    axes[0].set_title('XOR')
    drawing.below(figure, axes[0], columns=4)
    return drawing.png(figure)
