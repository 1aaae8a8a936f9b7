"""transformers.zip: Compressing Transformers with Pruning and Quantization (Cheong & Daniel 2019)."""

from experiments.cheong2019 import cells, claims
from prunejax.sweep import study

STUDY = study.Study(
  name='cheong2019',
  title='A translation Transformer pruned, or its weights shared',
  source='Cheong & Daniel 2019',
  presets=cells.PRESETS,
  plan=cells.plan,
  measure=cells.measure,
  claims=claims.claims,
  tables=claims.shown_tables,
  figures=claims.figures,
  captions={
    'compression': 'BLEU against compression rate; small dots are seeds. Squares: nothing trained after.'
  },
)
reproduce, write_report, redraw, compare = study.verbs(STUDY)
