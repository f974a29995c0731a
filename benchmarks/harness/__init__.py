"""What the benchmarks share: floors, child processes, interleaving, statistics, tables."""
