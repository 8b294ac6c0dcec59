"""Formulas as MathML, which browsers draw by themselves: no script, font or network is needed."""

import re

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml


def to_mathml(node, **options):
    """MathML of a formula. Braces keep the size of the text, as docutils has it for parentheses."""
    return re.sub(
        "<mo>([{}])</mo>", r'<mo stretchy="false">\1</mo>', tex2mathml(node.astext(), **options)
    )


def visit_math(self, node):
    self.body.append(to_mathml(node))
    raise nodes.SkipNode


def visit_displaymath(self, node):
    self.body.append(self.starttag(node, "div", CLASS="math"))
    self.body.append(to_mathml(node, as_block=True))
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app):
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
