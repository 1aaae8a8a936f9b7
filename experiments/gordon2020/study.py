"""Compressing BERT (Gordon, Duh & Andrews 2020) as a study: its cells, its claims, its report."""

import functools
import pathlib

from experiments.gordon2020 import claims, presets
from experiments.gordon2020.analysis import arms, probes, report
from experiments.gordon2020.plan import plan
from prunejax.sweep import study

STUDY = study.Study(
  name='gordon2020',
  title='Compressing BERT: weight pruning and transfer',
  source='Gordon, Duh & Andrews 2020, arXiv:2002.08307',
  presets=presets.PRESETS,
  plan=plan,
  measure=None,
  claims=claims.check,
  tables=report.tables_of,
  figures=report.figures_of,
  captions=report.CAPTIONS,
  after=probes.after,
  analyse=claims.grid,
  parts=('names', 'sparsities', 'seeds', 'scale', 'rates', 'families', 'from_scratch'),
  tables_of_folder=report.who_pays,
  differences=report.differences,
  colours={text: arms.colour(arm) for arm, name in arms.NAMES.items() for text in (arm, name)},
  earlier_costs=str(pathlib.Path(__file__).parent / 'cost.jsonl'),
)
cells = functools.partial(study.cells, STUDY)
reproduce, write_report, redraw, compare = study.verbs(STUDY)
