"""Optax links that stand beside pruning: penalties, low rank, rewinding, moments made new, codebooks."""
