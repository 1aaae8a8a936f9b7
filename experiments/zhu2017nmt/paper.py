"""Numbers of the translation models in Zhu & Gupta 2017 (arXiv:1710.01878).

BLEU from English to German. The numbers at 0.9 and of the small model have two sources; the others
are read from notes of the paper and could not be checked against its text.
"""

# {(size, sparsity): (millions of non-zeros, BLEU)}
BLEU = {
  ('large', 0.0): (211, 26.77),
  ('large', 0.8): (44, 26.86),
  ('large', 0.85): (33, 26.52),
  ('large', 0.9): (23, 26.19),
  ('small', 0.0): (81, 26.05),
}
