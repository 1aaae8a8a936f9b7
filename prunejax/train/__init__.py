"""One run: start with `step`, the algorithm, and `loop`, which trains, saves and resumes.

`recipe` turns a config into plain values; `optimizer` makes the optax chain of a recipe.
"""
