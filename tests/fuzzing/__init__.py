"""Hostile input: what comes over the wire and out of the database, made from bytes, and what must hold for it.

`draw` makes values from bytes; `wire` and `rows` hold the targets; `targets` lists them; `run` is `make fuzz`, where
atheris chooses the bytes by the branches they reach. `tests/access/test_fuzzing.py` runs a bounded part in the suite.
"""
