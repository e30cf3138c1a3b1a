"""Measures the data path: ``python -m tests.e2e.datapath.bench`` writes docs/benchmarks/. Not a test: nothing is asserted."""
