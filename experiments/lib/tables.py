"""Tables in Markdown and LaTeX from the same rows."""

import pathlib

LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
})


def show(value, decimals=1):
    """A cell: numbers with so many decimals, None as a dash."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.{decimals}f}"
    return str(value)


def markdown(heading, rows):
    lines = ["| " + " | ".join(heading) + " |", "| --- |" + " ---: |" * (len(heading) - 1)]
    for row in rows:
        lines.append("| " + " | ".join(show(cell).replace("|", "\\|") for cell in row) + " |")
    return "\n".join(lines) + "\n"


def latex(heading, rows, caption=""):
    out = [r"\begin{tabular}{l" + "r" * (len(heading) - 1) + "}", r"\hline"]
    out.append(" & ".join(word.translate(LATEX) for word in heading) + r" \\ \hline")
    for row in rows:
        out.append(" & ".join(show(cell).translate(LATEX) for cell in row) + r" \\")
    out += [r"\hline", r"\end{tabular}"]
    text = "\n".join(out) + "\n"
    return f"% {caption}\n{text}" if caption else text


def write(directory, name, heading, rows, caption=""):
    """Writes name.md and name.tex; gives the Markdown."""
    directory = pathlib.Path(directory)
    text = markdown(heading, rows)
    (directory / f"{name}.md").write_text(text)
    (directory / f"{name}.tex").write_text(latex(heading, rows, caption))
    return text
