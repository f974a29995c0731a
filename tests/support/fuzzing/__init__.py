"""Fuzzing of everything that reads bytes from the network or from files.

Run as a program, for a memory limit of its own: ``python -m support.fuzzing CASES SEED``. It prints one JSON object:
the cases, how many each reader took and refused, and every case that broke a rule. The rules:

- a reader gives a value or raises one of the errors that it documents, never anything else;
- it never allocates more than `feeding.MEMORY` (an address space limit turns that into a MemoryError);
- it never takes more than `feeding.SECONDS` of processor time.
"""
