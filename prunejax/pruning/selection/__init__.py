"""Which scores are the highest? Exact selection by counting, ties broken by position."""

from prunejax.pruning.selection.highest import Selected as Selected
from prunejax.pruning.selection.highest import plain as plain
from prunejax.pruning.selection.highest import select as select
from prunejax.pruning.selection.keys import order_key as order_key
from prunejax.pruning.selection.passes import Scores as Scores
