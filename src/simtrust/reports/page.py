"""A page of sections with charts, in one file that opens from disk and asks the network for nothing."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import NamedTuple

from plotly.offline import get_plotlyjs

from simtrust.reports.charts import Chart

SHARED = "page.html"
TALLEST = 640
"""Pixels; a taller chart is scrolled within the page."""


LONG = 10
"""Characters from which on a card's value is a text rather than a number."""


class Figure(NamedTuple):
    """A chart on the page, and what is written beneath it."""

    key: str
    """Its own on the page, of letters, digits and hyphens."""
    chart: Chart
    caption: str


class Section(NamedTuple):
    """A part of the page: HTML, and figures between it."""

    key: str
    title: str
    blocks: Sequence[str | Figure]


def compose(template: str, title: str, opening: str, sections: Sequence[Section]) -> str:
    """The page: what all our pages share (``page.html``), filled.

    Args:
        template: a file of this package with what is the page's own: a style and a footer.
        title: text.
        opening: HTML, what stands above the sections.
        sections: in their order.
    """
    shared, own = (files("simtrust.reports").joinpath(name).read_text("utf-8") for name in (SHARED, template))
    style, separator, footer = own.partition("</style>")
    page = shared.replace("{{style}}", style + separator).replace("{{footer}}", footer.strip())
    plotly = get_plotlyjs()
    figures = [block for section in sections for block in section.blocks if isinstance(block, Figure)]
    parts = {
        "title": escape(title),
        "opening": opening,
        "contents": "".join(f'<li><a href="#{s.key}">{escape(s.title)}</a></li>' for s in sections),
        "sections": "\n".join(map(_section, sections)),
        "figures": _script_json({f.key: {"layout": f.chart.layout, "views": f.chart.views} for f in figures}),
        "plotly": plotly,
    }
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    parts["hashes"] = " ".join(_hash(plotly if script == "{{plotly}}" else script) for script in scripts)
    # In one pass, so that nothing that a user wrote is taken for a place to fill.
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], page)


def _hash(script: str) -> str:
    """A script as the page's security policy names it, so that no other one runs."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _script_json(content: object) -> str:
    """JSON that cannot end the script element around it."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _section(section: Section) -> str:
    blocks = [_figure(block) if isinstance(block, Figure) else block for block in section.blocks]
    title = f'<h2 id="{section.key}-title">{escape(section.title)}</h2>'
    return "\n".join(
        [f'<section id="{section.key}" aria-labelledby="{section.key}-title">', title, *blocks, "</section>"]
    )


def _figure(figure: Figure) -> str:
    selects = "".join(
        f"<label>{escape(choice.name)} <select data-figure={figure.key!r}>"
        + "".join(f"<option>{escape(option)}</option>" for option in choice.options)
        + "</select></label>"
        for choice in figure.chart.choices
        if len(choice.options) > 1
    )
    chart = (
        f'<div class="chart" id="chart-{figure.key}" data-key="{figure.key}" role="img" '
        f'aria-label="{escape(figure.chart.summary)}" style="height:{figure.chart.height}px"></div>'
    )
    if figure.chart.height > TALLEST:
        chart = f'<div class="scroll" tabindex="0" style="max-height:{TALLEST}px">{chart}</div>'
    controls = f'<div class="controls">{selects}</div>' if selects else ""
    return f"<figure>{controls}{chart}<figcaption>{escape(figure.caption)}</figcaption></figure>"


def paragraph(text: str) -> str:
    """A paragraph of a text."""
    return f"<p>{escape(text)}</p>"


def table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts, the first column naming the rows."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in header)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(
            f'<td data-column="{escape(column)}">{escape(text)}</td>'
            for column, text in zip(header[1:], row[1:], strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="table" tabindex="0"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def details(summary: str, content: str) -> str:
    """HTML that unfolds."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def command_line(command: str) -> str:
    """A command with a button that copies it."""
    return (
        f'<div class="command"><pre tabindex="0"><code>{escape(command)}</code></pre>'
        '<button type="button">Copy</button></div>'
    )


def card_list(cards: Sequence[tuple[str, str, str]]) -> str:
    """Cards of texts: name, value, and what it means."""
    return '<dl class="cards">{}</dl>'.format(
        "".join(
            f'<div class="card"><dt>{escape(name)}</dt>'
            f'<dd class="value{" long" if len(value) > LONG else ""}">{escape(value)}</dd>'
            f"<dd>{escape(note)}</dd></div>"
            for name, value, note in cards
        )
    )


def step_list(key: str, title: str, steps: Sequence[tuple[str, str]]) -> str:
    """A section of numbered steps: a title, which is text, and HTML."""
    items = "".join(f"<li><h3>{escape(heading)}</h3>{content}</li>" for heading, content in steps)
    return (
        f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{escape(title)}</h2>'
        f'<ol class="steps">{items}</ol></section>'
    )


def heading(kind: str, sign: str, text: str) -> str:
    """The page's first heading: ``kind`` is ``gap``, ``unknown`` or ``fine``, which colours its sign."""
    return f'<h1 class="{kind}"><span class="sign" aria-hidden="true">{sign}</span>{escape(text)}</h1>'


def missing_list(reasons: Mapping[str, str]) -> str:
    """What is not there, and why."""
    items = "".join(
        f"<li><strong>No {escape(part)}:</strong> {escape(reason)}</li>" for part, reason in reasons.items()
    )
    return f'<ul class="missing">{items}</ul>'
