"""The core: a criterion, a schedule, an allocation and a structure make a pruning method.

Imports jax, numpy and optax alone. `transform.prune_transform` is the product of the four; the
packages `criteria`, `allocations` and `structures` and the file `schedules` list their factories.
"""
