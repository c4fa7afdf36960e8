"""The page as text: one file that opens offline, with a strict Content-Security-Policy."""

import base64
from collections.abc import Mapping
from hashlib import sha256
from importlib import resources
from typing import TYPE_CHECKING, Any

from mribatch.core.about import RESEARCH_NOTICE, __version__
from mribatch.core.text import one_line
from mribatch.report.html.content import PageContent
from mribatch.report.metrics import MACRO
from mribatch.report.text.sentences import (
    CLASS_TABLE,
    CLASS_TABLE_TITLES,
    HEADLINE,
    describe_intervals,
    describe_protocol,
    describe_training_images,
)

if TYPE_CHECKING:
    from jinja2 import Environment

_STYLE, _SCRIPT, _TEMPLATE = "page.css", "page.js", "page.html.j2"


def render_page(content: PageContent) -> str:
    """The page of a run."""
    return fill_template(
        _TEMPLATE,
        {
            "content": content,
            "metrics": content.metrics,
            "level": content.level,
            "headline": HEADLINE,
            "macro": MACRO,
            "class_table": CLASS_TABLE,
            "class_titles": CLASS_TABLE_TITLES,
            "describe_intervals": describe_intervals,
            "protocol": describe_protocol(content.metrics),
            "training_images": describe_training_images(content.metrics),
        },
    )


def fill_template(name: str, values: Mapping[str, Any]) -> str:
    """Fill a template of this folder, with the style and the script of the report's page."""
    return render_template(_read(name), style=_read(_STYLE), script=_read(_SCRIPT), **values)


def render_template(template: str, *, style: str, script: str = "", **values: object) -> str:
    """Fill a template. Every text that comes from files or tables is escaped by jinja2.

    Args:
        template: Text of a jinja2 template; it may use `policy`, `version` and `research_notice`.
        style, script: The only ones that the page may use.
        **values: What the template names.
    """
    environment = _environment()
    common = {"style": style, "script": script, "policy": _policy(style, script)}
    environment.globals |= common | {"version": __version__, "research_notice": RESEARCH_NOTICE}  # for macros, too
    filled: str = environment.from_string(template).render(values)
    return filled


def page_style() -> str:
    """The style that all pages share."""
    return _read(_STYLE)


def _environment() -> "Environment":
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(_read),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "one_line": one_line,
        "number": lambda value: "–" if value is None else f"{value:.3f}",
        "percent": lambda value: "–" if value is None else f"{value:.1%}",
        "exact": lambda value: "" if value is None else repr(value),
    }
    return environment


def _policy(style: str, script: str) -> str:
    """Nothing is loaded, nothing is sent, and only this style and this script are used (W3C CSP level 3)."""
    sources = (f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'" for text in (style, script))
    style_hash, script_hash = sources
    return (
        f"default-src 'none'; img-src data:; style-src {style_hash}; script-src {script_hash}; "
        "base-uri 'none'; form-action 'none'"
    )


def _read(name: str) -> str:
    return resources.files("mribatch.report.html").joinpath(name).read_text(encoding="utf-8")
