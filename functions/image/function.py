"""image: decode, turn, make grey and encode a JPEG (Pillow), as FaaSMem's image benchmark does.

Initialization paints a seeded picture of 3000 x 2000 and keeps it as a JPEG. A request decodes it, crops a
seeded window, makes it grey and encodes it. The grey picture's histogram must count every pixel.
"""

import hashlib
import io
import random

from PIL import Image, ImageDraw

WIDTH, HEIGHT = 3000, 2000
CROP_WIDTH, CROP_HEIGHT = 2400, 1600


def _picture():
    rng = random.Random(20240427)
    noise = Image.frombytes("RGB", (600, 400), rng.randbytes(600 * 400 * 3))
    picture = noise.resize((WIDTH, HEIGHT), Image.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for _ in range(300):
        x, y, size = rng.randrange(WIDTH), rng.randrange(HEIGHT), rng.randrange(20, 200)
        draw.ellipse((x, y, x + size, y + size), fill=tuple(rng.randbytes(3)))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


picture = _picture()


def handler(ctx):
    seed = int(ctx.input["seed"])
    rng = random.Random(seed)
    left, top = rng.randrange(WIDTH - CROP_WIDTH), rng.randrange(HEIGHT - CROP_HEIGHT)
    with Image.open(io.BytesIO(picture)) as source:
        window = source.crop((left, top, left + CROP_WIDTH, top + CROP_HEIGHT))
    grey = window.convert("L")
    output = io.BytesIO()
    grey.save(output, "JPEG", quality=80)
    return {
        "seed": seed,
        "pixels": CROP_WIDTH * CROP_HEIGHT,
        "histogram_total": sum(grey.histogram()),
        "digest": hashlib.sha256(output.getvalue()).hexdigest(),
    }
