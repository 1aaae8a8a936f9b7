"""A decoder of three small blocks as three functions, its kernels in any layout, stacked or not."""

import jax
import jax.numpy as jnp
import numpy as np

from prunejax import oneshot

WORDS, WIDTH, INNER, BLOCKS = 20, 8, 16, 3
LAYOUTS = {
  'in out': 'in out',
  'out in': 'out in',
  'heads': {r'.*/up': 'in out out', r'.*/down': 'in out'},
}
SEGMENTS = np.random.default_rng(1).integers(0, WORDS, (4, 6)).astype(np.int32)


def make(layout='in out', stacked=False):
  """(Decoder, params) with kernels of a name of LAYOUTS."""
  rng = np.random.default_rng(0)
  store = {
    'in out': lambda x: x,
    'out in': lambda x: x.T,
    'heads': lambda x: x.reshape(WIDTH, 2, -1) if x.shape[0] == WIDTH else x,
  }[layout]
  matrix = lambda x, inputs: x.T if layout == 'out in' else x.reshape(inputs, -1)
  draw = lambda inputs, outputs: np.float32(rng.normal(size=(inputs, outputs)) * inputs**-0.5)

  def block(weights, hidden):
    inner = jax.nn.relu(hidden @ matrix(weights['up'], WIDTH))
    return hidden + inner @ matrix(weights['down'], INNER), {'up': hidden, 'down': inner}

  blocks = [
    {'up': store(draw(WIDTH, INNER)), 'down': store(draw(INNER, WIDTH))} for _ in range(BLOCKS)
  ]
  params = {'words': draw(WORDS, WIDTH)}
  if stacked:
    params['blocks'] = jax.tree.map(lambda *leaves: np.stack(leaves), *blocks)
  else:
    params |= {f'block_{i}': weights for i, weights in enumerate(blocks)}
  paths = ('blocks',) if stacked else tuple(f'block_{i}' for i in range(BLOCKS))
  model = oneshot.Decoder(
    lambda params, tokens: jnp.asarray(params['words'])[tokens],
    block,
    lambda params, hidden: hidden @ params['words'].T,
    paths,
    BLOCKS if stacked else 0,
  )
  return model, params
