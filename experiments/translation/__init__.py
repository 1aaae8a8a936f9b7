"""Code shared by the papers on translation: sentence pairs, training, BLEU of a greedy decoder."""
