"""What each function promises of itself: FaaSMem's sizes, answers that check themselves, and nothing left behind."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import types
import unittest

FUNCTIONS = pathlib.Path(__file__).resolve().parent.parent

# The limit in MiB and the share of a processor in thousandths that FaaSMem's evaluation gives each.
LIMITS = {
    "bert": (1770, 1000), "graph": (885, 500), "web": (354, 200), "float": (177, 500), "matmul": (177, 500),
    "linpack": (177, 500), "image": (177, 500), "chameleon": (177, 500), "pyaes": (177, 500), "gzip": (177, 500),
    "json": (177, 500),
}


def load(name):
    spec = importlib.util.spec_from_file_location(f"function_{name}", FUNCTIONS / name / "function.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ask(module, seed):
    return module.handler(types.SimpleNamespace(input={"seed": seed}))


class SuiteTests(unittest.TestCase):
    def test_the_suite_is_faasmems(self):
        manifests = {path.parent.name: json.loads(path.read_text()) for path in FUNCTIONS.glob("*/manifest.json")}
        self.assertEqual(set(manifests), set(LIMITS))
        for name, manifest in manifests.items():
            with self.subTest(name):
                self.assertEqual(manifest["name"], name)
                self.assertEqual((manifest["memory_mib"], manifest["cpu_millis"]), LIMITS[name])

    def test_promises(self):
        promises = {
            "matmul": {"size": 1000, "wrong_rows": 0},
            "linpack": {"size": 1000, "wrong_unknowns": 0, "is_accurate": True},
            "chameleon": {"cells": 10_000},
            "pyaes": {"characters": 10_000, "restored": 10_000},
            "gzip": {"bytes": 1 << 20, "restored": 1 << 20},
            "float": {"terms": 100_000, "ones": 100_000.0},
            "image": {"pixels": 2400 * 1600, "histogram_total": 2400 * 1600},
            "graph": {"vertices": 100_000},
        }
        for name, promise in promises.items():
            with self.subTest(name):
                module = load(name)
                for seed in (1, 2):
                    answer = ask(module, seed)
                    self.assertEqual({key: answer[key] for key in promise}, promise)
                    self.assertEqual(answer["seed"], seed)
                if name == "graph":
                    self.assertEqual(sum(answer["layers"]), module.VERTICES)
                    # Each vertex brings 50 edges, as far as there are others to connect it to.
                    self.assertGreater(module.graph.ecount(), 49 * module.VERTICES)
                if name == "chameleon":
                    self.assertEqual(answer["sum"], answer["page_sum"])

    def test_checks_can_fail(self):
        """The answers' own checks see a wrong result; else they would prove nothing."""
        matmul, numpy = load("matmul"), sys.modules["numpy"]

        class Off(numpy.ndarray):
            def __matmul__(self, other):
                product = numpy.asarray(self) @ numpy.asarray(other)
                if product.ndim == 2:
                    product[17, 4] += 1
                return product

        rng = numpy.random.default_rng

        def off(seed):
            real = rng(seed)
            return types.SimpleNamespace(integers=lambda *arguments: real.integers(*arguments).view(Off))

        matmul.numpy = types.SimpleNamespace(
            random=types.SimpleNamespace(default_rng=off), float64=numpy.float64, count_nonzero=numpy.count_nonzero)
        self.assertEqual(ask(matmul, 1)["wrong_rows"], 1)

    def test_gzip_leaves_no_file(self):
        with tempfile.TemporaryDirectory() as directory:
            code = (
                "import importlib.util, types\n"
                f"spec = importlib.util.spec_from_file_location('f', {str(FUNCTIONS / 'gzip' / 'function.py')!r})\n"
                "module = importlib.util.module_from_spec(spec)\n"
                "spec.loader.exec_module(module)\n"
                "module.handler(types.SimpleNamespace(input={'seed': 1}))\n")
            environment = dict(os.environ, TMPDIR=directory)
            subprocess.run(["/usr/bin/python3", "-c", code], env=environment, check=True, timeout=60)
            self.assertEqual(os.listdir(directory), [])


class BertTests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.bert = load("bert")

    def test_it_is_bert_base(self):
        self.assertEqual(self.bert.parameters, 109_514_298)
        self.assertEqual(len(set(self.bert.pieces)), 30_522)
        self.assertEqual(len(self.bert.model.layers), 12)

    def test_tokenizer_takes_the_longest_piece(self):
        tokenizer = self.bert.Tokenizer(self.bert.pieces)
        tokenizer.numbers = {"un": 1, "una": 2, "##ff": 3, "##able": 4, "##f": 5, "a": 6}
        self.assertEqual(tokenizer.encode("unaffable a [MASK]"), [101, 2, 3, 4, 6, 103, 102])
        self.assertEqual(tokenizer.encode("UNA xyz"), [101, 2, 100, 102])
        self.assertEqual(tokenizer.encode("a" * 101), [101, 100, 102])

    def test_every_word_of_the_novel_has_pieces(self):
        numbers = self.bert.tokenizer.encode(self.bert.novel[:20_000])
        self.assertNotIn(self.bert.UNKNOWN, numbers)
        self.assertGreater(len(set(numbers)), 1000)

    def test_attention_sees_every_token(self):
        """The prediction at the mask depends on each other token, before and after it."""
        numpy = sys.modules["numpy"]
        numbers = [101, 2000, 3000, 103, 4000, 102]
        base = self.bert.model.predict(numbers, 3)
        self.assertAlmostEqual(float(base.sum()), 1, places=3)
        for position in (0, 1, 2, 4, 5):
            changed = list(numbers)
            changed[position] = 5000
            self.assertGreater(float(numpy.abs(self.bert.model.predict(changed, 3) - base).max()), 0)

    def test_layer_against_a_plain_one(self):
        """One layer in double precision, written with loops."""
        import math

        numpy = sys.modules["numpy"]
        layer = self.bert.model.layers[0]
        x = numpy.random.default_rng(1).standard_normal((3, 768)).astype(numpy.float32)

        def dense(part, rows):
            return rows @ part.weight.astype(float) + part.bias.astype(float)

        def norm(rows):
            return numpy.array([(row - row.mean()) / math.sqrt(row.var() + 1e-12) for row in rows])

        wide = x.astype(float)
        query, key, value = dense(layer.query, wide), dense(layer.key, wide), dense(layer.value, wide)
        attended = numpy.zeros_like(wide)
        for head in range(12):
            part = slice(64 * head, 64 * head + 64)
            for row in range(3):
                scores = [math.exp(query[row, part] @ key[other, part] / 8) for other in range(3)]
                attended[row, part] = sum(
                    score / sum(scores) * value[other, part] for other, score in enumerate(scores))
        middle = norm(wide + dense(layer.mix, attended))
        inner = dense(layer.widen, middle)
        inner = 0.5 * inner * (1 + numpy.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
        expected = norm(middle + dense(layer.narrow, inner))
        self.assertLess(float(numpy.abs(layer(x) - expected).max()), 1e-4)


class ThreadTests(unittest.TestCase):
    def test_answers_do_not_depend_on_threads(self):
        """What the environment says of BLAS threads changes nothing; nor do places of memory, which are random."""
        code = (
            "import importlib.util, sys, types\n"
            "for path in sys.argv[1:]:\n"
            "    spec = importlib.util.spec_from_file_location('f', path)\n"
            "    module = importlib.util.module_from_spec(spec)\n"
            "    spec.loader.exec_module(module)\n"
            "    print(module.handler(types.SimpleNamespace(input={'seed': 5})))\n")
        paths = [str(FUNCTIONS / name / "function.py") for name in ("matmul", "linpack", "bert")]
        outputs = set()
        for threads in ("1", "2", "2"):
            environment = dict(os.environ, OPENBLAS_NUM_THREADS=threads, OMP_NUM_THREADS=threads)
            run = subprocess.run(
                ["/usr/bin/python3", "-c", code, *paths], env=environment, check=True, timeout=120, text=True,
                stdout=subprocess.PIPE)
            outputs.add(run.stdout)
        self.assertEqual(len(outputs), 1, outputs)


if __name__ == "__main__":
    unittest.main()
