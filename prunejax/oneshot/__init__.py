"""Prunes without training, block by block, in the memory of one block."""

from prunejax.oneshot.block_by_block import Pruned, prune
from prunejax.oneshot.decoder import Decoder, linen_block
from prunejax.oneshot.reconstruction import reconstruct
from prunejax.oneshot.shares import owl

__all__ = ['Decoder', 'Pruned', 'linen_block', 'owl', 'prune', 'reconstruct']
