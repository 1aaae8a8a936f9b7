"""The size of a pruned model: file formats, shared weights, codes, smaller dense models."""
