"""pyaes: AES in counter mode over 10,000 characters, in Python alone (FaaSMem's pyaes benchmark).

A request encrypts a seeded text under a seeded key of 128 bits and decrypts it again. The answer carries
how many characters came back as they were: all.
"""

import hashlib
import random
import string

import pyaes

CHARACTERS = 10_000


def handler(ctx):
    seed = int(ctx.input["seed"])
    rng = random.Random(seed)
    key = rng.randbytes(16)
    text = "".join(rng.choices(string.ascii_letters + string.digits, k=CHARACTERS))
    secret = pyaes.AESModeOfOperationCTR(key).encrypt(text)
    back = pyaes.AESModeOfOperationCTR(key).decrypt(secret).decode()
    return {
        "seed": seed,
        "characters": len(text),
        "restored": sum(map(str.__eq__, text, back)),
        "digest": hashlib.sha256(secret).hexdigest(),
    }
