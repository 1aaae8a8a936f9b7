"""FLOPs, bytes and collectives read from compiled programs, against counts made by hand."""

import functools

import jax
import jax.numpy as jnp
import pytest

import prunejax
from prunejax.pruning import schedules
from prunejax.pruning.selection import ties
from prunejax.topology import hlo

FLOATS = jax.ShapeDtypeStruct((64, 64), jnp.float32)
PRODUCT = 2 * 64**3


def costs(fn, *arguments):
  return hlo.cost(hlo.parse(jax.jit(fn).lower(*arguments).compile().as_text()))


def flops(cost):
  return sum(cost.flops.values())


def scanned(length, x):
  return jax.lax.scan(lambda a, _: (jnp.tanh(a @ x), None), x, None, length=length)[0]


def nested(x):
  inner = lambda a, _: (jnp.tanh(a @ x), None)
  outer = lambda a, _: (jax.lax.scan(inner, a, None, length=3)[0] @ x, None)
  return jax.lax.scan(outer, x, None, length=5)[0]


def counted_down(x):
  """A loop whose counter falls by two: 9, 7, 5, 3."""
  body = lambda carry: (carry[0] - 2, jnp.tanh(carry[1] @ x))
  return jax.lax.while_loop(lambda carry: carry[0] > 2, body, (9, x))[1]


def until_small(x):
  """A loop whose length depends on the data."""
  return jax.lax.while_loop(lambda a: jnp.sum(a) > 1, lambda a: a @ x * 0.1, x)


CASES = {
  'product': (lambda x: x @ x, 1),
  'scan of 7': (functools.partial(scanned, 7), 7),
  'scans of 5 x (3 + 1)': (nested, 20),
  'for 6': (lambda x: jax.lax.fori_loop(0, 6, lambda _, a: jnp.tanh(a @ x), x), 6),
  'from 3 to 11': (lambda x: jax.lax.fori_loop(3, 11, lambda _, a: jnp.tanh(a @ x), x), 8),
  'down': (counted_down, 4),
  'unknown length': (until_small, hlo.ROUNDS),
  'a branch counts as if taken': (
    lambda x: jax.lax.cond(jnp.sum(x) > 0, lambda: x @ x @ x, lambda: x),
    2,
  ),
}


@pytest.mark.parametrize('name', CASES)
def test_loops_count_as_often_as_they_run(name):
  fn, products = CASES[name]
  plain, moving = costs(fn, FLOATS)
  assert flops(plain) == flops(moving) == products * PRODUCT
  assert plain.guessed == (name == 'unknown length')


def test_a_batched_product_has_a_batch_of_flops():
  x = jax.ShapeDtypeStruct((6, 8, 16), jnp.float32)
  plain, _ = costs(lambda a: jnp.einsum('bij,bkj->bik', a, a), x)
  assert flops(plain) == 2 * 6 * 8 * 8 * 16


def test_a_convolution_counts_the_places_that_meet_its_input():
  image, kernel = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((2, 9, 9, 3), (3, 3, 3, 4)))
  plain, _ = costs(
    lambda x, k: jax.lax.conv_general_dilated(
      x, k, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    ),
    image,
    kernel,
  )
  assert flops(plain) == 2 * 2 * 7 * 7 * 4 * 3 * 9


def test_a_sum_reads_its_operand_once():
  plain, _ = costs(lambda x: jnp.sum(x * 2), FLOATS)
  assert FLOATS.size * 4 <= plain.bytes <= FLOATS.size * 4 * 1.1


def test_a_loop_over_slices_reads_each_slice_once():
  stack = jax.ShapeDtypeStruct((32, 64, 64), jnp.float32)
  plain, _ = costs(lambda x: jax.lax.scan(lambda a, w: (a + w, None), x[0], x)[0], stack)
  # The slice, the sum before and after: not the whole stack in each of the 32 rounds.
  assert 32 * FLOATS.size * 4 <= plain.bytes <= 32 * 5 * FLOATS.size * 4


def test_what_runs_at_mask_steps_only_is_told_apart():
  tx = prunejax.prune_transform(prunejax.magnitude(), prunejax.cubic(0.9, end=100))
  params = {'kernel': FLOATS}
  state = jax.eval_shape(tx.init, params)
  plain, moving = costs(lambda s, p: tx.update(p, s, p), state, params)
  read = FLOATS.size * 4
  # Off mask steps: weights and updates are read and written, and masks are.
  assert plain.bytes < 6 * read
  assert moving.bytes > plain.bytes + 2 * read
  assert moving.guessed >= 1 and plain.guessed == 0
  assert hlo.MASK_STEP == schedules.MASK_STEP and hlo.TIES == ties.SCOPE


# Lines as the compiler of a TPU writes them; %p is [16, 128] bfloat16 in main memory.
TPU = """HloModule jit_f, is_scheduled=true

%fused (param_0: bf16[16,12,128,64], param_1: bf16[16,12,128,64]) -> bf16[16,12,128,128] {{
  %param_0 = bf16[16,12,128,64]{{2,3,1,0:T(8,128)(2,1)}} parameter(0)
  %param_1 = bf16[16,12,128,64]{{2,3,1,0:T(8,128)(2,1)}} parameter(1)
  ROOT %scores = bf16[16,12,128,128]{{2,3,1,0:T(8,128)(2,1)}} convolution(%param_0, %param_1), \
window={{size=16x12 stride=15x11 lhs_dilate=16x12}}, dim_labels=01bf_01oi->01bf
}}

ENTRY %main (p: bf16[16,128], q: bf16[16,12,128,64]) -> bf16[16,128] {{
  %p = bf16[16,128]{{1,0:T(8,128)(2,1)}} parameter(0)
  %q = bf16[16,12,128,64]{{2,3,1,0:T(8,128)(2,1)S(1)}} parameter(1)
  {line}
  ROOT %end = bf16[16,128]{{1,0:T(8,128)(2,1)}} bitcast(%p)
}}
"""
WHOLE = 16 * 128 * 2
LINES = {
  'fusion in the core': (
    '%x = bf16[16,12,128,128]{2,3,1,0:T(8,128)(2,1)S(1)} fusion(%q, %q), kind=kOutput,'
    ' calls=%fused',
    dict(flops={'bf16': 2.0 * 16 * 12 * 128 * 128 * 64}, bytes=0.0),
  ),
  'fetched ahead': (
    '%x = (bf16[16,128]{1,0:T(8,128)(2,1)S(1)}, bf16[16,128]{1,0:T(8,128)(2,1)}, u32[]{:S(2)})'
    ' copy-start(%p)',
    dict(bytes=WHOLE),
  ),
  'a slice fetched ahead': (
    '%x = ((bf16[16,128]{1,0}), bf16[4,128]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%p),'
    ' slice={[0:4], [0:128]}',
    dict(bytes=WHOLE / 4),
  ),
  'all-reduce over a list': (
    '%x = bf16[16,128]{1,0} all-reduce(%p), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add',
    dict(bytes=2 * WHOLE, sent=2 * 0.75 * WHOLE, collectives={'all-reduce': (1.0, WHOLE)}),
  ),
  'all-reduce over a mesh': (
    "%x = bf16[16,128]{1,0} all-reduce(%p), replica_groups=mesh['a'=4,'b'=2] {'a','b'},"
    ' to_apply=%add',
    dict(bytes=2 * WHOLE, sent=2 * 0.875 * WHOLE, collectives={'all-reduce': (1.0, WHOLE)}),
  ),
  'all-gather over a grid': (
    '%x = bf16[64,128]{1,0} all-gather(%p), replica_groups=[2,4]<=[8], dimensions={0}',
    dict(bytes=5 * WHOLE, sent=0.75 * 4 * WHOLE, collectives={'all-gather': (1.0, 4 * WHOLE)}),
  ),
  'all-gather that has started': (
    '%x = (bf16[16,128]{1,0}, bf16[64,128]{1,0}) all-gather-start(%p), replica_groups=[2,4]<=[8]',
    dict(bytes=5 * WHOLE, sent=0.75 * 4 * WHOLE, collectives={'all-gather': (1.0, 4 * WHOLE)}),
  ),
  'reduce-scatter': (
    '%x = bf16[4,128]{1,0} reduce-scatter(%p), replica_groups=[2,4]<=[8], to_apply=%add',
    dict(bytes=1.25 * WHOLE, sent=0.75 * WHOLE, collectives={'reduce-scatter': (1.0, WHOLE)}),
  ),
  'collective-permute': (
    '%x = bf16[16,128]{1,0} collective-permute(%p), source_target_pairs={{0,1},{1,0}}',
    dict(bytes=2 * WHOLE, sent=WHOLE, collectives={'collective-permute': (1.0, WHOLE)}),
  ),
  'a place in memory': (
    '%x = bf16[16,128]{1,0} custom-call(), custom_call_target="AllocateBuffer"',
    dict(bytes=0.0),
  ),
}


def test_a_collective_that_is_computed_along_with_others_counts_once():
  gather = (
    '%part = bf16[16,128]{{1,0}} all-gather(%param_0), replica_groups=[2,4]<=[8],'
    ' frontend_attributes={{chain_id="0"}}'
  )
  part = (
    f'%{{name}} (param_0: bf16[4,128]) -> bf16[16,128] {{{{\n  %param_0 = bf16[4,128]{{{{1,0}}}}'
    f' parameter(0)\n  {gather}\n  ROOT %out = bf16[16,128]{{{{1,0}}}} custom-call(%part),'
    ' custom_call_target="AsyncCollective{kind}"\n}}\n'
  )
  text = 'HloModule jit_f\n' + ''.join(
    part.format(name=kind.lower(), kind=kind) for kind in ('Start', 'Done')
  )
  text += 'ENTRY %main (p: bf16[4,128]) -> bf16[16,128] {\n  %p = bf16[4,128]{1,0} parameter(0)\n'
  text += '  %a = bf16[16,128]{1,0} fusion(%p), kind=kCustom, calls=%start\n'
  text += '  ROOT %b = bf16[16,128]{1,0} fusion(%p), kind=kCustom, calls=%done\n}\n'
  plain, _ = hlo.cost(hlo.parse(text))
  assert plain.collectives == {'all-gather': (1.0, 16 * 128 * 2)} and not plain.opaque


@pytest.mark.parametrize('name', LINES)
def test_a_line_of_a_tpu_program(name):
  line, expected = LINES[name]
  plain, _ = hlo.cost(hlo.parse(TPU.format(line=line)))
  expected = {'flops': {}, 'bytes': 0.0, 'sent': 0.0, 'collectives': {}} | expected
  assert {field: getattr(plain, field) for field in expected} == expected


def test_a_text_that_is_no_program_is_refused():
  with pytest.raises(ValueError, match='no ENTRY'):
    hlo.parse('HloModule empty\n')
