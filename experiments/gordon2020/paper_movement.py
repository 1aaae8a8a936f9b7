"""What Gordon, Duh & Andrews 2020 (arXiv:2002.08307v2) print about movement and weights, as data, each with its source.

Movements are in per cent of a matrix's size, as printed; the paper has one run of each.
"""

TASKS = ('MNLI', 'QQP', 'QNLI', 'SST-2', 'CoLA')
OURS = {
  'mnli': 'MNLI',
  'qqp': 'QQP',
  'qnli': 'QNLI',
  'sst2': 'SST-2',
  'cola': 'CoLA',
}  # names of its tasks here

# Table 2: movement in magnitude order while the dense model is fine-tuned, (mean, deviation) over all weights.
_PRINTED = {
  2e-5: ((1.91, 1.81), (1.82, 1.72), (1.27, 1.22), (1.06, 1.03), (0.79, 0.77)),
  3e-5: ((2.68, 2.51), (2.56, 2.40), (1.79, 1.69), (1.54, 1.47), (1.06, 1.03)),
  4e-5: ((3.41, 3.18), (3.30, 3.10), (2.31, 2.19), (1.99, 1.89), (1.11, 1.09)),
  5e-5: ((4.12, 3.83), (4.02, 3.74), (2.77, 2.62), (2.38, 2.29), (1.47, 1.43)),
}
TABLE2 = {rate: dict(zip(TASKS, values, strict=True)) for rate, values in _PRINTED.items()}

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
