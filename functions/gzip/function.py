"""gzip: writes 1 MiB of random bytes to a file and compresses it into another (FaaSMem's gzip benchmark).

Nothing is kept: both files are gone when the request ends. The answer carries how many bytes the compressed
file gives back: as many as were written, and the same.
"""

import gzip
import hashlib
import random
import shutil
import tempfile

SIZE = 1 << 20


def handler(ctx):
    seed = int(ctx.input["seed"])
    with tempfile.TemporaryFile() as plain, tempfile.TemporaryFile() as packed:
        plain.write(random.Random(seed).randbytes(SIZE))
        plain.seek(0)
        # No name and no time in the header: the same bytes in every container.
        with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as output:
            shutil.copyfileobj(plain, output)
        packed.seek(0)
        compressed = packed.read()
        plain.seek(0)
        restored = gzip.decompress(compressed)
        return {
            "seed": seed,
            "bytes": SIZE,
            "restored": len(restored) if restored == plain.read() else 0,
            "compressed": len(compressed),
            "digest": hashlib.sha256(compressed).hexdigest(),
        }
