"""web: a page server that keeps its pages in memory, as FaaSMem's html_server does.

Initialization renders 50 pages of about 1.5 MiB from a seeded vocabulary. A request picks a page with a
Pareto law, so few pages are hot, and answers with its SHA3-512.
"""

import hashlib
import random

PAGES = 50
PAGE_BYTES = 3 << 19
PARETO_SHAPE = 0.9


def _paragraphs(rng):
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 11))) for _ in range(4000)]
    return ["<p>" + " ".join(rng.choices(words, k=70)) + "</p>\n" for _ in range(3000)]


def _page(rng, paragraphs, number):
    parts = [f"<html><head><title>Page {number}</title></head><body>\n"]
    size = 0
    while size < PAGE_BYTES:
        chosen = rng.choices(paragraphs, k=256)
        parts += chosen
        size += sum(map(len, chosen))
    parts.append("</body></html>\n")
    return "".join(parts)


def _pages():
    rng = random.Random(20240427)
    paragraphs = _paragraphs(rng)
    return [_page(rng, paragraphs, number) for number in range(PAGES)]


pages = _pages()


def handler(ctx):
    seed = int(ctx.input["seed"])
    rank = int(random.Random(seed).paretovariate(PARETO_SHAPE)) - 1
    number = rank % PAGES
    page = pages[number].encode()
    return {
        "seed": seed,
        "page": number,
        "bytes": len(page),
        "digest": hashlib.sha3_512(page).hexdigest(),
    }
