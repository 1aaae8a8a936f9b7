"""Measures a model: perplexity of a text, scores on tasks."""
