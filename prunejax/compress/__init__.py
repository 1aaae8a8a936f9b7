"""What a pruned model weighs: file formats, shared weights, codes, smaller dense models."""
