"""Numbers of the Penn Treebank language models in Zhu & Gupta 2017 (arXiv:1710.01878, section 4.2).

Two perplexities are confirmed by a second source (`CONFIRMED`). The others are read from notes of
the paper and could not be checked against its text.
"""

PARAMETERS = {'small': 4.6, 'medium': 19.8, 'large': 66.0}  # millions
# {size: {sparsity: perplexity}}
PERPLEXITY = {
  'small': {0.0: 115.30},
  'medium': {0.0: 83.37, 0.8: 83.87, 0.85: 85.17, 0.9: 87.86, 0.95: 96.30},
  'large': {0.0: 78.45, 0.8: 77.52, 0.85: 78.31, 0.9: 80.24, 0.95: 87.83},
}
CONFIRMED = {('medium', 0.0), ('large', 0.9)}


def nonzeros(size: str, sparsity: float) -> float:
  """Compute a model's non-zero parameters in millions."""
  return PARAMETERS[size] * (1 - sparsity)
