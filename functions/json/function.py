"""json: parse, change and print a document (FaaSMem's json benchmark with a generated document).

Initialization prints a seeded search result of about 5 MiB. A request parses it, keeps the items of a
seeded price band, orders them and prints them again. The answer tells how many items there were on either
side of the band; together they are all.
"""

import hashlib
import json
import random

ITEMS = 20_000


def _document():
    rng = random.Random(20240427)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(500)]
    items = [
        {
            "id": number,
            "title": " ".join(rng.choices(words, k=8)),
            "price": round(rng.uniform(1, 1000), 2),
            "tags": rng.choices(words, k=6),
            "seller": {"name": rng.choice(words), "rating": rng.randint(0, 500) / 100},
            "stock": rng.randint(0, 1000),
        }
        for number in range(ITEMS)
    ]
    return json.dumps({"items": items})


document = _document()


def handler(ctx):
    seed = int(ctx.input["seed"])
    rng = random.Random(seed)
    low, high = sorted((rng.uniform(1, 1000), rng.uniform(1, 1000)))
    items = json.loads(document)["items"]
    inside = [item for item in items if low <= item["price"] <= high]
    inside.sort(key=lambda item: (item["price"], item["id"]))
    text = json.dumps({"items": inside})
    return {
        "seed": seed,
        "items": len(items),
        "inside": len(inside),
        "outside": len(items) - len(inside),
        "digest": hashlib.sha256(text.encode()).hexdigest(),
    }
