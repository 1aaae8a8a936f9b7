"""Numbers as data of the optimizer's state, in float32 whatever the type of the weights."""

from collections.abc import Callable, Iterable

import jax.numpy as jnp
import optax


def inject_hyperparams(
  inner_factory: Callable[..., optax.GradientTransformation],
  static_args: str | Iterable[str] = (),
) -> Callable[..., optax.GradientTransformationExtraArgs]:
  """Makes `optax.inject_hyperparams` whose numbers are float32.

  Optax gives an injected number the type of the weights. In bfloat16 a sparsity of 0.9 is 0.8984,
  and step 10,001 is 9,984.

  Args:
    inner_factory: a function of numbers that makes a link, such as one that calls
      `prune_transform`.
    static_args: as in `optax.inject_hyperparams`.

  Returns:
    A function of the arguments of `inner_factory`. It makes a link whose numbers are in its state,
    under `hyperparams`.
  """
  return optax.inject_hyperparams(inner_factory, static_args, hyperparam_dtype=jnp.float32)
