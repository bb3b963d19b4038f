"""bert: masked-token prediction by a transformer of BERT-base's shape (FaaSMem's bert benchmark, numpy).

The architecture is BERT-base's to the last parameter (12 layers of 768, 12 heads, feed-forward 3072, 30,522
word pieces, 512 positions, output weights tied to the embedding: 109,514,298 parameters in float32). The
weights are drawn from a seed, as BERT's are before training, so what it predicts means nothing, but costs the
same. So are the vocabulary and the novel that it reads. A request takes 19 characters of the novel, adds a
mask, and answers with the likeliest pieces there. The probabilities of all pieces must add up to 1.
"""

import hashlib
import os
import random
import re

# One thread, whichever BLAS the machine has: the function is to be the same everywhere.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
# And no huge pages: far memory moves pages of 4 KiB, and FaaSMem's evaluation turns huge ones off.
os.environ["NUMPY_MADVISE_HUGEPAGE"] = "0"

import numpy  # noqa: E402

SEED = 20240427
LAYERS = 12
HIDDEN = 768
HEADS = 12
FEED_FORWARD = 3072
VOCABULARY = 30_522
POSITIONS = 512
SLICE_CHARACTERS = 19
LIKELIEST = 20

UNKNOWN, START, END, MASK = 100, 101, 102, 103
WORD_PIECE_MAX = 100
SYLLABLES = [first + last for first in "bcdfghjklmnpqrstvwz" for last in ("a", "e", "i", "o", "u", "an", "er", "on")]


def _vocabulary(rng):
    """BERT's layout: special pieces and unused ones, characters, their continuations, words and parts of words."""
    pieces = ["[PAD]"] + [f"[unused{number}]" for number in range(998)]
    pieces[UNKNOWN], pieces[START], pieces[END], pieces[MASK] = "[UNK]", "[CLS]", "[SEP]", "[MASK]"
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces += list(letters) + list(".,;!?'-") + ["##" + letter for letter in letters]
    known = set(pieces)
    while len(pieces) < VOCABULARY:
        word = "".join(rng.choices(SYLLABLES, k=rng.choice((1, 2, 2, 3, 3, 4))))
        piece = "##" + word if len(pieces) % 5 == 0 else word
        if piece not in known:
            known.add(piece)
            pieces.append(piece)
    return pieces


def _novel(rng, pieces):
    """60,000 words, one in ten of them none of the vocabulary's."""
    words = [piece for piece in pieces[1000:] if piece.isalpha()]
    text = []
    for number in range(60_000):
        word = rng.choice(words)
        if number % 10 == 0:
            word += "".join(rng.choices(SYLLABLES, k=2))
        text.append(word + rng.choice(("", "", "", "", "", "", "", ",", ".", ";")))
    return " ".join(text)


class Tokenizer:
    """Word pieces, the longest first."""

    def __init__(self, pieces):
        self.numbers = {piece: number for number, piece in enumerate(pieces)}

    def encode(self, text):
        numbers = [START]
        for word in re.findall(r"\[MASK\]|\w+|[^\w\s]", text):
            numbers += [MASK] if word == "[MASK]" else self._word(word.lower())
        return numbers + [END]

    def _word(self, word):
        if len(word) > WORD_PIECE_MAX:
            return [UNKNOWN]
        numbers, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                number = self.numbers.get(("##" if start else "") + word[start:end])
                if number is not None:
                    break
            else:
                return [UNKNOWN]
            numbers.append(number)
            start = end
        return numbers


class Dense:
    """x W + b."""

    def __init__(self, draw, inputs, outputs):
        self.weight = draw(inputs, outputs)
        self.bias = numpy.zeros(outputs, numpy.float32)

    def __call__(self, x):
        return x @ self.weight + self.bias


class Norm:
    """Layer normalization."""

    def __init__(self):
        self.scale = numpy.ones(HIDDEN, numpy.float32)
        self.shift = numpy.zeros(HIDDEN, numpy.float32)

    def __call__(self, x):
        centered = x - x.mean(-1, keepdims=True)
        deviation = numpy.sqrt((centered * centered).mean(-1, keepdims=True) + numpy.float32(1e-12))
        return centered / deviation * self.scale + self.shift


def _softmax(x):
    powers = numpy.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _gelu(x):
    """BERT's own, the one with tanh."""
    return numpy.float32(0.5) * x * (1 + numpy.tanh(numpy.float32(0.7978845608) * (x + numpy.float32(0.044715) * x * x * x)))


class Layer:
    """Self-attention and feed-forward, each added to what came in and normalized."""

    def __init__(self, draw):
        self.query, self.key, self.value, self.mix = (Dense(draw, HIDDEN, HIDDEN) for _ in range(4))
        self.widen, self.narrow = Dense(draw, HIDDEN, FEED_FORWARD), Dense(draw, FEED_FORWARD, HIDDEN)
        self.attention_norm, self.output_norm = Norm(), Norm()

    def __call__(self, x):
        query, key, value = (self._heads(dense(x)) for dense in (self.query, self.key, self.value))
        weights = _softmax(query @ key.transpose(0, 2, 1) / numpy.float32((HIDDEN // HEADS) ** 0.5))
        attended = (weights @ value).transpose(1, 0, 2).reshape(len(x), HIDDEN)
        x = self.attention_norm(x + self.mix(attended))
        return self.output_norm(x + self.narrow(_gelu(self.widen(x))))

    @staticmethod
    def _heads(x):
        return x.reshape(len(x), HEADS, HIDDEN // HEADS).transpose(1, 0, 2)


class Model:
    """BERT with the head that predicts masked pieces."""

    def __init__(self):
        rng = numpy.random.Generator(numpy.random.SFC64(SEED))

        def draw(*shape):
            weight = rng.standard_normal(shape, numpy.float32)
            weight *= numpy.float32(0.02)
            return weight

        self.words, self.positions, self.kinds = draw(VOCABULARY, HIDDEN), draw(POSITIONS, HIDDEN), draw(2, HIDDEN)
        self.embedding_norm = Norm()
        self.layers = [Layer(draw) for _ in range(LAYERS)]
        self.transform, self.transform_norm = Dense(draw, HIDDEN, HIDDEN), Norm()
        self.output_bias = numpy.zeros(VOCABULARY, numpy.float32)

    def parameters(self):
        """How many numbers it has, counted from the arrays that it has."""
        return sum(array.size for array in _arrays(self))

    def predict(self, numbers, position):
        """The probability of every piece at a position."""
        x = self.words[numbers] + self.positions[: len(numbers)] + self.kinds[0]
        x = self.embedding_norm(x)
        for layer in self.layers:
            x = layer(x)
        x = self.transform_norm(_gelu(self.transform(x[position])))
        return _softmax(self.words @ x + self.output_bias)


def _arrays(part):
    if isinstance(part, numpy.ndarray):
        yield part
    elif isinstance(part, list):
        for item in part:
            yield from _arrays(item)
    elif hasattr(part, "__dict__"):
        for item in vars(part).values():
            yield from _arrays(item)


pieces = _vocabulary(random.Random(SEED))
novel = _novel(random.Random(SEED + 1), pieces)
tokenizer = Tokenizer(pieces)
model = Model()
parameters = model.parameters()


def handler(ctx):
    seed = int(ctx.input["seed"])
    start = random.Random(seed).randrange(len(novel) - SLICE_CHARACTERS)
    text = novel[start : start + SLICE_CHARACTERS] + " [MASK]"
    numbers = tokenizer.encode(text)
    probabilities = model.predict(numbers, numbers.index(MASK))
    likeliest = numpy.argsort(-probabilities, kind="stable")[:LIKELIEST].tolist()
    return {
        "seed": seed,
        "text": text,
        "tokens": len(numbers),
        "parameters": parameters,
        "prediction": [pieces[number] for number in likeliest[:5]],
        "probability_sum": round(float(probabilities.sum(dtype=numpy.float64)), 4),
        "digest": hashlib.sha256(",".join(map(str, likeliest)).encode()).hexdigest(),
    }
