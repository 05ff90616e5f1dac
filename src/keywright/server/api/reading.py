"""A page of the documentation as a browser shows it: headings that can be linked to, call-outs, code in language tabs.

Pages are written in CommonMark with tables. A quotation that begins with ``[!NOTE]``, ``[!TIP]`` or ``[!WARNING]`` is a
call-out, as on GitHub; code blocks that follow each other, each in a language of its own, are tabs. Tabs are radio buttons:
no page of these has a script.
"""

import re
from collections.abc import Sequence
from functools import cache
from html import escape
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

_CALL_OUT: Final = re.compile(r"\A\[!(NOTE|TIP|WARNING)\]\s*")
#: What a tab is called.
_LANGUAGES: Final = {
    "bash": "curl",
    "sh": "curl",
    "python": "Python",
    "js": "Node",
    "toml": "TOML",
    "json": "JSON",
}
_PAGE_LINK: Final = re.compile(r"\A([a-z0-9-]+)\.md(#.*)?\Z")
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}: Keywright</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="assets/reading.css">
</head>
<body>
<a class="skip" href="#page">Skip to the page</a>
<nav aria-label="Pages"><ul>
<li><a href="../docs">The API, to try</a></li>
{links}
</ul></nav>
<main id="page">
{body}
</main>
</body>
</html>
"""


def page(name: str, text: str, names: Sequence[tuple[str, str]]) -> str:
    """The page ``name`` as HTML; ``names`` are the names and titles of all pages, for the list of them."""
    links = "\n".join(_entry(to, called, here=to == name) for to, called in names)
    called = dict(names)[name]
    return _PAGE.format(title=escape(called), links=links, body=_body(text))


def _entry(to: str, called: str, *, here: bool) -> str:
    marked = ' aria-current="page"' if here else ""
    return f'<li><a href="{escape(to)}"{marked}>{escape(called)}</a></li>'


def slug(heading: str) -> str:
    """The name by which a heading is linked to, as on GitHub."""
    return re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).replace(" ", "-")


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _body(text: str) -> str:
    made = _markdown()
    tokens = made.parse(text)
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", slug(tokens[place + 1].content))
        elif token.type == "blockquote_open":
            _mark_call_out(tokens, place)
        elif token.type == "table_open":
            token.attrSet("tabindex", "0")
        for inner in token.children or ():
            _lead_on(inner)
    return "".join(
        made.renderer.render([part], made.options, {}) if isinstance(part, Token) else _tabs(part)
        for part in _grouped(tokens)
    )


def _mark_call_out(tokens: list[Token], place: int) -> None:
    """Make a call-out of a quotation that says it is one; its kind stands in front of it, for who does not see colours."""
    inline = tokens[place + 2]
    found = _CALL_OUT.match(inline.content)
    if found is None or not inline.children:
        return
    kind, first = found[1].lower(), inline.children[0]
    tokens[place].attrSet("class", f"call-out {kind}")
    tokens[place].attrSet("role", "note")
    rest = first.content[len(found[0]) :]
    first.content = f"{kind.capitalize()}: {rest}"
    if not rest and len(inline.children) > 1 and inline.children[1].type == "softbreak":
        del inline.children[1]


def _lead_on(token: Token) -> None:
    """Let a link to a page lead to the page as a browser shows it."""
    target = token.attrGet("href")
    found = _PAGE_LINK.match(str(target)) if token.type == "link_open" else None
    if found is not None:
        token.attrSet("href", found[1] + (found[2] or ""))


def _grouped(tokens: list[Token]) -> list[Token | list[Token]]:
    """Code blocks that follow each other, in languages of their own, together; all else by itself."""
    found: list[Token | list[Token]] = []
    for token in tokens:
        last = found[-1] if found else None
        if token.type == "fence" and isinstance(last, list) and token.info not in {one.info for one in last}:
            last.append(token)
        else:
            found.append([token] if token.type == "fence" and token.info in _LANGUAGES else token)
    return found


def _tabs(blocks: list[Token]) -> str:
    if len(blocks) == 1:
        return _code(blocks[0])
    group = f"tabs-{blocks[0].map[0] if blocks[0].map else 0}"
    parts = []
    for place, block in enumerate(blocks):
        key, called = f"{group}-{place}", escape(_LANGUAGES.get(block.info, block.info))
        chosen = " checked" if place == 0 else ""
        parts.append(
            f'<input type="radio" name="{group}" id="{key}"{chosen}><label for="{key}">{called}</label>'
        )
        parts.append(f'<div class="tab">{_code(block)}</div>')
    return (
        f'<div class="tabs" role="group" aria-label="The same in several languages">{"".join(parts)}</div>\n'
    )


def _code(block: Token) -> str:
    return f'<pre tabindex="0"><code>{escape(block.content)}</code></pre>\n'


__all__ = ["page", "slug"]
