"""linpack: a dense system of 1000 equations (FaaSMem's linpack benchmark, numpy's solve). Nothing is kept.

The right-hand side is made from a solution of whole numbers. The answer carries how many of them were not
found, and whether the scaled residual is below 16, LINPACK's own criterion.
"""

import hashlib
import os

# One thread, whichever BLAS the machine has: the function is to be the same everywhere.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
# And no huge pages: far memory moves pages of 4 KiB, and FaaSMem's evaluation turns huge ones off.
os.environ["NUMPY_MADVISE_HUGEPAGE"] = "0"

import numpy  # noqa: E402

SIZE = 1000


def handler(ctx):
    seed = int(ctx.input["seed"])
    rng = numpy.random.default_rng(seed)
    matrix = rng.uniform(-0.5, 0.5, (SIZE, SIZE))
    solution = rng.integers(-1000, 1000, SIZE)
    right = matrix @ solution
    found = numpy.linalg.solve(matrix, right)
    scale = numpy.abs(matrix).sum(axis=1).max() * numpy.abs(found).max() * SIZE * numpy.finfo(float).eps
    residual = numpy.abs(matrix @ found - right).max() / scale
    whole = numpy.rint(found).astype(numpy.int64)
    return {
        "seed": seed,
        "size": SIZE,
        "wrong_unknowns": int(numpy.count_nonzero(whole != solution)),
        "is_accurate": bool(residual < 16),
        "digest": hashlib.sha256(whole.tobytes()).hexdigest(),
    }
