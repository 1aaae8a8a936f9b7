"""Makes the extra arguments of `tx.update` for models of any library.

Some criteria read more than the gradient. `value_fn`, `examples` and `outputs` of this module make
those arguments from a loss and a batch, whatever library the model comes from.
`prunejax.observe.linen` and `prunejax.observe.nnx` also make `activations`, by recording what goes
into each dense layer. Both import Flax, so import them by name. `import prunejax` imports none of
this.
"""

from prunejax.observe.batches import examples as examples
from prunejax.observe.batches import outputs as outputs
from prunejax.observe.batches import value_fn as value_fn
