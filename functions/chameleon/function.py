"""chameleon: an HTML table of 100 x 100 cells (FaaSMem's chameleon benchmark).

A request compiles the template and renders a seeded table, as a server without a template cache does.
The answer carries the number of cells and the sums of what was put in and of what can be read from the page.
"""

import hashlib
import random
import re

from chameleon import PageTemplate

ROWS = COLUMNS = 100
VALUE_MAX = 1_000_000

TEMPLATE = """
<html xmlns="http://www.w3.org/1999/xhtml" xmlns:tal="http://xml.zope.org/namespaces/tal">
<body>
<h1 tal:content="title">Title</h1>
<table>
<tr tal:repeat="row table">
<td tal:repeat="cell row" tal:attributes="class 'odd' if cell % 2 else 'even'" tal:content="cell">Cell</td>
</tr>
</table>
</body>
</html>
"""
CELL = re.compile(r'<td class="(?:odd|even)">(\d+)</td>')


def handler(ctx):
    seed = int(ctx.input["seed"])
    rng = random.Random(seed)
    table = [[rng.randrange(VALUE_MAX) for _ in range(COLUMNS)] for _ in range(ROWS)]
    page = PageTemplate(TEMPLATE).render(title=f"Table {seed}", table=table)
    cells = CELL.findall(page)
    return {
        "seed": seed,
        "cells": len(cells),
        "sum": sum(map(sum, table)),
        "page_sum": sum(map(int, cells)),
        "digest": hashlib.sha256(page.encode()).hexdigest(),
    }
