"""numeric.py linpack|inference MIB: linear algebra on about MIB of memory (numpy).

Prints the seconds that the work took, how many results were wrong, and a digest of them, which is the same in
each run; ends with 1 when there are wrong ones. All that is counted is whole numbers, so no rounding decides.
"""

import hashlib
import os
import sys
import time

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
# Far memory moves pages of 4 KiB.
os.environ["NUMPY_MADVISE_HUGEPAGE"] = "0"

import numpy  # noqa: E402

SEED = 20200427


def linpack(size):
    """A dense system of equations; the solver works on a copy of the matrix."""
    count = int((size / 2 / 8) ** 0.5)
    rng = numpy.random.default_rng(SEED)
    matrix = rng.random((count, count))
    matrix -= 0.5
    solution = rng.integers(-1000, 1000, count)
    right = matrix @ solution
    start = time.monotonic()
    found = numpy.linalg.solve(matrix, right)
    took = time.monotonic() - start
    whole = numpy.rint(found).astype(numpy.int64)
    return took, int(numpy.count_nonzero(whole != solution)), whole


WIDTH = 1024
BATCH = 16
BATCHES = 8


def inference(size):
    """Batches through a network as wide as BERT is, its weights -1, 0 and 1 and its activations of 4 bits: exact in float32."""
    rng = numpy.random.default_rng(SEED)
    layers = []
    for _ in range(max(2, size // (WIDTH * WIDTH * 4))):
        layers.append((rng.random((WIDTH, WIDTH), numpy.float32) * 3).astype(numpy.int8).astype(numpy.float32) - 1)
    inputs = rng.integers(0, 16, (BATCHES, BATCH, WIDTH)).astype(numpy.float32)

    def run(x):
        for weight in layers:
            x = x @ weight
            x = numpy.clip(numpy.floor(x / 32) + 4, 0, 15)
        return x.astype(numpy.int8)

    start = time.monotonic()
    outputs = numpy.stack([run(x) for x in inputs])
    took = time.monotonic() - start
    again = numpy.stack([run(x) for x in inputs[:2]])
    return took, int(numpy.count_nonzero(outputs[:2] != again)), outputs


def main():
    works = {"linpack": linpack, "inference": inference}
    if len(sys.argv) != 3 or sys.argv[1] not in works or not sys.argv[2].isdigit() or sys.argv[2] == "0":
        sys.exit("usage: numeric.py linpack|inference MIB")
    took, wrong, result = works[sys.argv[1]](int(sys.argv[2]) << 20)
    print(f"{took:.3f} {wrong} {hashlib.sha256(result.tobytes()).hexdigest()[:16]}")
    return int(wrong != 0)


if __name__ == "__main__":
    sys.exit(main())
