"""The command line: one file a verb. A verb imports its heavy modules when it runs."""
