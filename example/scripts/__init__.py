"""The tools behind the Makefile's targets."""
