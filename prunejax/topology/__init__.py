"""Programs compiled ahead of time for chips that need not be here, and what the compiler says."""
