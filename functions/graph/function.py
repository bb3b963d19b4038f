"""graph: breadth-first search in a Barabasi-Albert graph that initialization builds (igraph).

100,000 vertices with 50 edges each, as FaaSMem's graph_bfs has. A request searches from a seeded vertex. The
answer carries the size of every layer, whose sum must be the number of vertices, for such a graph is connected.
"""

import hashlib
import random
import sys

# igraph loads a plotting library where one is installed. It is not needed here, and the function is to be
# the same on every machine.
sys.modules["matplotlib"] = None

import igraph  # noqa: E402

VERTICES = 100_000
EDGES_PER_VERTEX = 50


def _graph():
    igraph.set_random_number_generator(random.Random(20240427))
    graph = igraph.Graph.Barabasi(VERTICES, EDGES_PER_VERTEX)
    # The first search builds the index of incident edges: part of initialization.
    graph.bfs(0)
    return graph


graph = _graph()


def handler(ctx):
    seed = int(ctx.input["seed"])
    root = int(random.Random(seed).paretovariate(0.1) - 1) % VERTICES
    order, starts, _parents = graph.bfs(root)
    layers = [end - start for start, end in zip(starts, starts[1:])]
    digest = hashlib.sha256(",".join(map(str, order)).encode()).hexdigest()
    return {"seed": seed, "root": root, "vertices": VERTICES, "layers": layers, "digest": digest}
