"""Hugging Face folders in and out: one file a model family, and `folder` and `convert` for all."""
