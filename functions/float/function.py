"""float: 100,000 sines, cosines and square roots (FaaSMem's float benchmark). No initialization.

The answer carries the sum of sin(x)^2 + cos(x)^2, which must be the number of terms.
"""

import hashlib
import math
import random
import struct

TERMS = 100_000


def handler(ctx):
    seed = int(ctx.input["seed"])
    start = random.Random(seed).uniform(0, 1000)
    ones = roots = 0.0
    for index in range(TERMS):
        x = start + index
        ones += math.sin(x) ** 2 + math.cos(x) ** 2
        roots += math.sqrt(x)
    digest = hashlib.sha256(struct.pack("<dd", ones, roots)).hexdigest()
    return {"seed": seed, "terms": TERMS, "ones": round(ones, 6), "digest": digest}
