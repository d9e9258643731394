"""Grids of training runs: the plan, runs as subprocesses, their results, statistics, tables and plots."""
