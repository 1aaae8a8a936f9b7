"""Optax links beside pruning: penalties, low rank, rewinding, fresh moments, codebooks."""
