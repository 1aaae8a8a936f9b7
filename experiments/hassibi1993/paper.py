"""Numbers of Hassibi & Stork 1993.

B. Hassibi and D. G. Stork, Second order derivatives for network pruning: Optimal Brain Surgeon,
NIPS 5 (1993), pp. 164-171. The reductions are in the abstract. The table is quoted from memory of
the body and agrees with the reductions to the per cent.
"""

# {problem: accuracy on train and test, weights of the network trained by back-propagation with
# weight decay, weights left}
TABLE = {
  'monks-1': {'train': 1.0, 'test': 1.0, 'weights': 58, 'left': 14},
  'monks-2': {'train': 1.0, 'test': 1.0, 'weights': 39, 'left': 15},
  'monks-3': {'train': 0.934, 'test': 0.972, 'weights': 39, 'left': 4},
}
REDUCTION = {'monks-1': 0.76, 'monks-2': 0.62, 'monks-3': 0.90}
