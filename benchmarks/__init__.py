"""Benchmarks. Each module prints a table and writes its numbers to benchmarks/results."""
