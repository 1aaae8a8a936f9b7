"""Many runs: a grid whose cells run once each, alone, in one program, or on several workers.

Start with `grid`; `study` is the framework of the experiments.
"""
