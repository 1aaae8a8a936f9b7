"""The numbers of the experiment's README stand in its ledgers."""

import json
import re

import readme_tables
import redrawn

HOME = redrawn.ROOT / 'experiments' / 'gordon2020'
TEXT = (HOME / 'README.md').read_text()


def test_the_counts_of_cells_are_those_of_the_ledgers():
  lines = re.findall(r'^\| \[(\S+\.jsonl)\].*? \| (\d+) \|', TEXT, re.M)
  assert {name for name, _ in lines} == {path.name for path in HOME.glob('*.jsonl')}
  for name, count in lines:
    rows = [json.loads(line) for line in (HOME / name).open()]
    # A cell that ran again has several lines.
    assert int(count) == len({row.get('cell', i) for i, row in enumerate(rows)}), name


def test_every_other_number_stands_in_a_redrawn_report(tmp_path):
  drawn = ''
  small = ('mini', 'equal', 'rates', 'switches', 'corpus', 'decoder', 'xlnet')
  for name in ('minilm', 'minilm-mrpc-longer', *small):
    redrawn.redraw(f'gordon2020/results-{name}.jsonl', tmp_path / name)
    drawn += (tmp_path / name / 'report.md').read_text()
  drawn += readme_tables.drawn(HOME / 'results-margins-minilm.jsonl').text
  numbers = re.findall(r'[-+]?\d+\.\d+ ± \d+\.\d+|\[[^]]*\d, [^]]*\d\]', TEXT)
  assert len(numbers) > 30
  assert [number for number in numbers if number not in drawn] == []
