"""matmul: the product of two 1000 x 1000 matrices (FaaSMem's matmul benchmark, numpy). Nothing is kept.

The entries are whole numbers small enough that every sum is exact, so the digest does not depend on the
order in which a library adds. Freivalds' check, A (B x) = C x, must hold in every row.
"""

import hashlib
import os

# One thread, whichever BLAS the machine has: the function is to be the same everywhere.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
# And no huge pages: far memory moves pages of 4 KiB, and FaaSMem's evaluation turns huge ones off.
os.environ["NUMPY_MADVISE_HUGEPAGE"] = "0"

import numpy  # noqa: E402

SIZE = 1000
# Sums of SIZE products stay below 2^53 even when they are multiplied by x.
ENTRY_MAX = 1000


def handler(ctx):
    seed = int(ctx.input["seed"])
    rng = numpy.random.default_rng(seed)
    left = rng.integers(0, ENTRY_MAX, (SIZE, SIZE)).astype(numpy.float64)
    right = rng.integers(0, ENTRY_MAX, (SIZE, SIZE)).astype(numpy.float64)
    product = left @ right
    probe = rng.integers(0, ENTRY_MAX, SIZE).astype(numpy.float64)
    wrong = numpy.count_nonzero(left @ (right @ probe) != product @ probe)
    return {
        "seed": seed,
        "size": SIZE,
        "wrong_rows": int(wrong),
        "digest": hashlib.sha256(product.tobytes()).hexdigest(),
    }
