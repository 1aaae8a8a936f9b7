"""Numbers of Cheong & Daniel 2019, read in summaries of their report, not in the report itself."""

BITS = 4  # of a weight under k-means
COMPRESSION = 5.85  # rate at that width
QUALITY = 0.9843  # BLEU at that width as a fraction of the dense model's
