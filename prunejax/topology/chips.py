"""Peak numbers of accelerators, as their makers publish them. Nothing here was measured."""

from typing import NamedTuple

GB = 1e9
TERA = 1e12


class Chip(NamedTuple):
  """One kind of chip.

  Attributes:
    name: as it is called in a topology, such as 'v5e'.
    kinds: the names that jax gives to its devices.
    flops: products of bfloat16 matrices, FLOP/s.
    flops_float32: products of float32 matrices at the default precision of jax, FLOP/s. A TPU
      rounds the operands to bfloat16, a GPU to TF32.
    memory: bytes of main memory.
    bandwidth: bytes/s of main memory.
    links: bytes/s that a chip can send to other chips, all links together.
    source: where the numbers come from.
  """

  name: str
  kinds: tuple[str, ...]
  flops: float
  flops_float32: float
  memory: float
  bandwidth: float
  links: float
  source: str


# The manual of a TPU gives the links of both directions together; `links` is half of that. It gives
# the memory in GB where it means GiB: the compiler refuses a program for v5e above 15.75 GiB.
CHIPS = {
  chip.name: chip
  for chip in (
    Chip(
      'v5e',
      ('TPU v5 lite', 'TPU v5e'),
      flops=197 * TERA,
      flops_float32=197 * TERA,
      memory=16 * 2**30,
      bandwidth=819 * GB,
      links=200 * GB,
      source='https://cloud.google.com/tpu/docs/v5e, key chip specifications',
    ),
    Chip(
      'v5p',
      ('TPU v5', 'TPU v5p'),
      flops=459 * TERA,
      flops_float32=459 * TERA,
      memory=95 * 2**30,
      bandwidth=2765 * GB,
      links=600 * GB,
      source='https://cloud.google.com/tpu/docs/v5p, key specifications',
    ),
    Chip(
      'v6e',
      ('TPU v6 lite', 'TPU v6e'),
      flops=918 * TERA,
      flops_float32=918 * TERA,
      memory=32 * 2**30,
      bandwidth=1638 * GB,
      links=400 * GB,
      source='https://cloud.google.com/tpu/docs/v6e, key specifications',
    ),
    Chip(
      'H100',
      ('NVIDIA H100', 'NVIDIA H100 80GB HBM3'),
      flops=989 * TERA,
      flops_float32=494 * TERA,
      memory=80 * GB,
      bandwidth=3350 * GB,
      links=450 * GB,
      source='NVIDIA H100 datasheet (SXM), tensor cores without sparsity',
    ),
    Chip(
      'H200',
      ('NVIDIA H200',),
      flops=989 * TERA,
      flops_float32=494 * TERA,
      memory=141 * GB,
      bandwidth=4800 * GB,
      links=450 * GB,
      source='NVIDIA H200 datasheet (SXM), tensor cores without sparsity',
    ),
    Chip(
      'A100',
      ('NVIDIA A100-SXM4-80GB',),
      flops=312 * TERA,
      flops_float32=156 * TERA,
      memory=80 * GB,
      bandwidth=2039 * GB,
      links=300 * GB,
      source='NVIDIA A100 80GB datasheet (SXM), tensor cores without sparsity',
    ),
  )
}


def of_device(kind: str) -> Chip | None:
  """Returns the chip of a device kind of jax, or None where it is not known."""
  return next((chip for chip in CHIPS.values() if kind in chip.kinds), None)


def words(chip: Chip) -> str:
  """Describes the peaks of a chip in one line."""
  peaks = [
    f'{chip.flops / TERA:.4g} TFLOP/s of bfloat16',
    *(
      [f'{chip.flops_float32 / TERA:.3g} TFLOP/s of float32']
      if chip.flops_float32 != chip.flops
      else []
    ),
    f'{chip.memory / 2**30:.3g} GiB at {chip.bandwidth / GB:.4g} GB/s',
    *([f'links {chip.links / GB:.3g} GB/s each way'] if chip.links else []),
  ]
  return f'{chip.name}: {", ".join(peaks)} ({chip.source})'
