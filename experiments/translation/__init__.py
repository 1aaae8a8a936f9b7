"""What the papers on translation share: sentence pairs, training, and BLEU of a greedy decoder."""
