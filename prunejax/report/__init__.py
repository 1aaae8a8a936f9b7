"""From a ledger to statistics, tables, figures and a page: what every paper uses.

The claims of a paper, and the rule of each verdict, are in `experiments/PAPER/claims.py`.
"""
