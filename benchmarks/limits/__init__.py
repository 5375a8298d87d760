"""What the machine allows: small programs with nothing in them but the thing itself.

Each has a `measure(case, seconds)` that reports figures under the names of that case,
so that they stand below the peers in its table, and runs by itself:

    python benchmarks/limits/pyzmq_pair.py
"""
