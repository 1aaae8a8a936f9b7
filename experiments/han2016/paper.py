"""Numbers of the two papers.

Han et al., NIPS 2015: arXiv 1506.02626v3. Deep Compression, ICLR 2016: arXiv 1510.00149v5.
"""

# 1506.02626, tables 3 and 4: fractions of the weights that are kept. Biases are not pruned.
KEPT = {
  'lenet-300-100': {'fc1': 0.08, 'fc2': 0.09, 'fc3': 0.26},
  'lenet-5': {'conv1': 0.66, 'conv2': 0.12, 'fc1': 0.08, 'fc2': 0.19},
}
# 1510.00149, tables 2 and 3: bits of a code and of a relative index at fixed width.
BITS = {
  'lenet-300-100': {'fc1': 6, 'fc2': 6, 'fc3': 6},
  'lenet-5': {'conv1': 8, 'conv2': 8, 'fc1': 5, 'fc2': 5},
}
INDEX_BITS = 5
# The same tables: bits of a weight and of an index after Huffman coding; the layer's size as a
# fraction of dense without (P+Q) and with (P+Q+H) Huffman coding.
CODED = {
  'lenet-300-100': {
    'fc1': (4.4, 3.7, 0.031, 0.0232),
    'fc2': (4.4, 4.3, 0.038, 0.0304),
    'fc3': (4.3, 3.2, 0.157, 0.127),
  },
  'lenet-5': {
    'conv1': (7.2, 1.5, 0.785, 0.6745),
    'conv2': (7.2, 3.9, 0.06, 0.0528),
    'fc1': (4.5, 4.5, 0.027, 0.0245),
    'fc2': (5.2, 3.7, 0.069, 0.0613),
  },
}
# 1506.02626, table 1: error in per cent before and after pruning, and how many times fewer weights.
PRUNED = {'lenet-300-100': (1.64, 1.59, 12), 'lenet-5': (0.80, 0.77, 12)}
# 1510.00149, table 1: error in per cent before and after, and the compression rate; tables 2 and 3:
# the rate before Huffman coding.
DEEP = {'lenet-300-100': (1.64, 1.58, 40, 32), 'lenet-5': (0.80, 0.74, 39, 33)}
HUFFMAN = (0.2, 0.3)  # Section 4: the fraction of the storage that Huffman coding saves.
INITS = ('linear', 'forgy', 'density')  # Section 3.2: where k-means starts.
