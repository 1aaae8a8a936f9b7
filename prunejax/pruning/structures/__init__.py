"""TOGETHER: which weights are kept or removed as one unit? Each factory makes a `Structure`.

A unit's score is the mean score of its weights, so units of any size compare.

To add a structure, write a factory in the file that fits, and name it here: spec strings such as
'n_m(2, 4)' resolve to the names of this list.
"""

from prunejax.pruning.structures.local import block, columns, n_m, rows, unstructured
from prunejax.pruning.structures.tied import ffn, heads, tied

__all__ = ['block', 'columns', 'ffn', 'heads', 'n_m', 'rows', 'tied', 'unstructured']
