"""Models in Flax linen, one file a model. `hf/` reads and writes the folders of Hugging Face."""
