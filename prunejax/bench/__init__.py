"""What `python -m prunejax bench` measures, one file a bench."""
