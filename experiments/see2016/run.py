"""Compression of Neural Machine Translation Models via Pruning (See, Luong & Manning 2016)."""

from experiments.see2016 import cells, claims
from prunejax.sweep import study

STUDY = study.Study(
  name='see2016',
  title='Pruning an LSTM translation model: three schemes',
  source='See, Luong & Manning 2016',
  presets=cells.PRESETS,
  plan=cells.plan,
  measure=cells.measure,
  claims=claims.claims,
  tables=claims.shown_tables,
  figures=claims.figures,
  captions={
    'schemes': 'BLEU against sparsity, a line a scheme; small dots are seeds. Stars: pruned and retrained; crosses: '
    'the same sparse network from fresh weights.',
    'classes': 'BLEU lost when one class alone is pruned, without retraining; dots are seeds.',
  },
)
reproduce, write_report, redraw, compare = study.verbs(STUDY)
