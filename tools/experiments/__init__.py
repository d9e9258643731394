"""Grids of training runs: the plan, the runs as subprocesses, their results, statistics, tables and plots."""
