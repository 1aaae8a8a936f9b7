"""Table 1 of Gordon, Duh & Andrews 2020 (arXiv:2002.08307v2, appendix) as data.

Accuracies are dev accuracies in points of 100, losses as printed; the AVG loss, which the paper
prints multiplied by 100, is divided back. One run a cell: the paper gives no intervals.
"""

TASKS = ('MNLI', 'QQP', 'QNLI', 'SST-2', 'CoLA')

PRETRAIN_LOSS = {
  'pruned': (1.82, 1.82, 1.83, 1.86, 1.93, 2.03, 2.25, 2.62, 3.44, 5.83),
  'random': (1.82, 2.09, 2.46, 2.98, 3.76, 4.73, 5.63, 6.22, 6.87, 7.37),
}
PRETRAIN_LOSS['deleted'] = PRETRAIN_LOSS['pruned']  # the same checkpoints

# One line a sparsity 0.0, 0.1 ... 0.9; each task 'accuracy|train loss', then AVG.
_PRINTED = {
  'pruned': """
        83.1|.25 90.5|.10 91.1|.12 92.1|.06 79.1|.26 87.2|15.7
        83.3|.21 90.4|.10 91.0|.12 91.6|.07 79.4|.30 87.2|16.0
        83.3|.24 90.5|.11 91.1|.11 91.6|.05 79.1|.30 87.1|16.0
        83.3|.23 90.2|.12 90.7|.12 91.9|.06 79.5|.31 87.1|16.9
        83.0|.25 90.1|.12 90.4|.12 91.5|.06 78.4|.23 86.7|15.6
        82.6|.27 89.8|.13 90.2|.13 90.9|.07 77.4|.30 86.2|18.0
        81.8|.32 89.4|.16 89.3|.16 91.4|.07 75.9|.44 85.6|23.0
        79.5|.40 88.6|.18 88.4|.21 90.1|.10 72.7|.47 83.9|27.1
        75.9|.49 86.9|.24 85.3|.29 88.1|.12 69.1|.61 81.1|34.8
        64.8|.76 81.1|.36 71.7|.52 80.3|.25 69.1|.61 73.4|49.8""",
  'deleted': """
        83.0|.20 90.6|.06 90.0|.10 92.1|.03 80.6|.18 87.3|11.6
        82.8|.01 90.5|.05 90.5|.09 92.2|.05 80.8|.16 87.4|7.2
        82.9|.01 90.5|.05 90.5|.09 91.5|.05 80.3|.16 87.2|7.3
        82.3|.01 90.6|.04 90.5|.10 90.8|.05 80.0|.18 86.9|7.7
        82.2|.19 90.5|.05 90.1|.10 92.0|.05 79.0|.17 86.7|11.1
        82.5|.19 90.3|.05 90.2|.10 91.2|.05 77.9|.19 86.4|11.6
        81.9|.20 90.1|.05 89.5|.10 90.8|.05 76.4|.23 85.7|12.6
        80.8|.01 90.2|.01 88.7|.10 90.3|.06 74.4|.28 84.9|9.3
        78.6|.01 89.3|.02 86.0|.02 88.8|.07 70.0|.45 82.5|11.5
        72.9|.01 87.5|.02 76.8|.06 83.0|.09 69.1|.61 77.9|15.7""",
  'after': """
        82.6|.15 90.6|.06 90.1|.10 92.1|.04 78.7|.25 86.8|12.0
        82.9|.19 90.6|.06 90.3|.10 91.6|.05 79.0|.11 86.9|10.3
        82.7|.15 90.6|.07 90.2|.07 92.0|.04 79.0|.22 86.9|10.7
        82.7|.23 90.4|.07 89.7|.07 91.6|.04 78.5|.23 86.6|12.8
        82.7|.25 90.5|.11 89.9|.12 91.7|.05 78.8|.17 86.7|13.9
        82.6|.19 90.3|.08 89.7|.11 90.8|.06 78.0|.22 86.3|13.0
        81.8|.22 90.2|.10 89.3|.12 90.6|.06 76.1|.31 85.6|16.4
        80.5|.30 89.4|.14 86.2|.19 88.2|.07 69.5|.58 82.7|25.8
        73.7|.53 87.8|.12 80.4|.21 86.4|.07 69.1|.59 79.5|30.5
        58.7|.86 82.5|.26 65.2|.52 81.5|.16 69.1|.61 71.4|47.9""",
  'random': """
        83.3|.26 90.5|.10 90.6|.15 92.4|.07 78.7|.18 87.1|15.3
        82.0|.27 90.1|.12 90.3|.13 92.3|.05 77.0|.32 86.3|18.0
        80.6|.32 89.8|.12 88.5|.14 91.1|.07 73.5|.39 84.7|20.8
        79.1|.36 89.2|.14 86.9|.23 89.3|.10 71.8|.47 83.3|25.9
        75.4|.45 88.2|.16 84.5|.23 88.6|.09 69.3|.57 81.2|30.3
        71.6|.60 86.6|.20 81.5|.28 85.0|.10 69.1|.61 78.8|35.8
        70.4|.60 85.2|.24 71.7|.45 81.5|.21 69.1|.61 75.6|42.3
        64.1|.76 81.4|.34 63.0|.62 80.6|.20 69.1|.61 71.6|50.3
        58.8|.84 76.6|.46 61.1|.64 80.6|.23 69.1|.61 69.3|55.6
        49.8|.98 74.3|.51 60.2|.65 75.1|.33 69.1|.61 65.7|61.4""",
}

# Points of accuracy for each nat of pre-train loss, information deletion, as fitted to Table 1;
# CoLA without its last point, as in the paper's Figure 2a.
SLOPES = {'MNLI': -2.48, 'QQP': -0.76, 'QNLI': -3.35, 'SST-2': -2.15, 'CoLA': -6.54}


def _entry(arm, index, line):
  cells = [tuple(map(float, cell.split('|'))) for cell in line.split()]
  losses = PRETRAIN_LOSS.get(arm)
  return {
    'loss': losses[index] if losses else None,
    'tasks': dict(zip(TASKS, cells[:-1], strict=True)),
    'average': cells[-1][0],
    'average_train_loss': cells[-1][1] / 100,
  }


# {arm: {sparsity: {'loss', 'tasks': {task: (accuracy, train loss)}, 'average', ...}}}
TABLE1 = {
  arm: {index / 10: _entry(arm, index, line) for index, line in enumerate(printed.split('\n')[1:])}
  for arm, printed in _PRINTED.items()
}

# Where the paper reads the ends of its regimes by eye (section 4): free up to 40 %, from 70 % on also unable to fit.
REGIMES = {'free, score': '0.4', 'free, loss': '0.4', 'fit, score': '0.7', 'fit, train loss': '0.7'}

# How many points of Table 1, the densest first, the lines of Figure 2a go through: that of CoLA leaves out 90 %.
LINES = {'MNLI': 10, 'QQP': 10, 'QNLI': 10, 'SST-2': 10, 'CoLA': 9}

OURS = {
  'mnli': 'MNLI',
  'qqp': 'QQP',
  'qnli': 'QNLI',
  'sst2': 'SST-2',
  'cola': 'CoLA',
}  # names of its tasks here

# Table 2: movement in magnitude order while the dense model is fine-tuned, (mean, deviation) over all weights.
_MOVEMENT = {
  2e-5: ((1.91, 1.81), (1.82, 1.72), (1.27, 1.22), (1.06, 1.03), (0.79, 0.77)),
  3e-5: ((2.68, 2.51), (2.56, 2.40), (1.79, 1.69), (1.54, 1.47), (1.06, 1.03)),
  4e-5: ((3.41, 3.18), (3.30, 3.10), (2.31, 2.19), (1.99, 1.89), (1.11, 1.09)),
  5e-5: ((4.12, 3.83), (4.02, 3.74), (2.77, 2.62), (2.38, 2.29), (1.47, 1.43)),
}
TABLE2 = {rate: dict(zip(TASKS, values, strict=True)) for rate, values in _MOVEMENT.items()}

# Figure 4, learning rate 5e-5: the values in the authors' repository, graphs/weight_change/trained_downstream.
EPOCHS = (1, 2, 3, 6, 12)
FIGURE4 = {
  'MNLI': (3.50, 3.93, 4.15, 4.43, 4.62),
  'QQP': (3.38, 3.79, 3.98, 4.21, 4.36),
  'QNLI': (2.52, 2.70, 2.78, 2.88, 2.93),
  'SST-2': (2.23, 2.35, 2.41, 2.47, 2.50),
  'CoLA': (1.07, 1.07, 1.07, 1.14, 1.17),
}

# The same repository, MNLI at 5e-5, by kind of matrix: (lowest, highest) over its layers, read to half a point.
MATRICES = {
  'pooler': (5.8, 5.8),
  'attention/output': (4, 6),
  'attention/value': (4, 6),
  'attention/query': (3.5, 4),
  'attention/key': (3.5, 4),
  'ffn/intermediate': (3, 4),
  'ffn/output': (3, 4),
}

# Table 3: (lowest, highest) over layers of the standard deviation of BERT-Base's matrices, and the means it prints
# as other than about zero.
TABLE3 = {
  'embeddings/word': (0.042, 0.042),
  'attention/output': (0.027, 0.037),
  'attention/key': (0.042, 0.047),
  'attention/query': (0.042, 0.048),
  'attention/value': (0.028, 0.039),
  'ffn/intermediate': (0.037, 0.041),
  'ffn/output': (0.036, 0.040),
  'pooler': (0.029, 0.029),
}
MEANS = {'embeddings/word': (-0.0282, -0.0282), 'ffn/output': (-0.0015, -0.0008)}

# Figure 3 and section 5: masks chosen after fine-tuning differ from those of pre-training in less than this share.
MOST_DIFFERENT = 0.06


def task(name):
  """The paper's name of one of our tasks ('tfds/glue/sst2' -> 'SST-2'), or None."""
  return OURS.get(name.rsplit('/', 1)[-1])
