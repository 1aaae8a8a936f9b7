"""Text and labelled data as numpy arrays: one file a source. Imports no jax.

`corpus` turns the text of any source into token arrays; `pretraining`, `causal_lm` and `finetuning`
make batches of them; `tasks` finds a labelled task by name.
"""
