"""Numbers are rounded before their unit is chosen."""

import pytest

from prunejax.bench import measure
from prunejax.bench import table as bench_table
from prunejax.topology import table as topology_table


@pytest.mark.parametrize(
  'value, text',
  [
    (None, 'not run'),
    (0, '0'),
    (0.01234, '0.0123'),
    (-12.34, '-12.3'),
    (999.4, '999'),
    (999.7, '1,000'),
    (-999.7, '-1,000'),
    (1234.4, '1,234'),
  ],
)
def test_values_of_a_bench(value, text):
  assert bench_table.number(value) == text
  if value is not None:
    assert topology_table._number(value) == text


@pytest.mark.parametrize(
  'seconds, text',
  [
    (3.214, '3.21 s'),
    (1234, '1,234 s'),
    (999.7, '1,000 s'),
    (0.9997, '1 s'),
    (0.9994, '999 ms'),
    (0.0123, '12.3 ms'),
    (9.997e-4, '1 ms'),
    (45.6e-6, '45.6 us'),
    (2e-8, '20 ns'),
    (0, '0 ns'),
  ],
)
def test_clocks(seconds, text):
  assert measure.clock(seconds) == text


@pytest.mark.parametrize(
  'size, text', [(12, '12 B'), (999.7, '1 kB'), (999.8e6, '1 GB'), (2.5e12, '2,500 GB')]
)
def test_bytes(size, text):
  assert topology_table._bytes(size) == text
