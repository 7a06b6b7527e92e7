"""Benchmarks: each file is a command with `--smoke` and JSON out; see README.md beside them."""
