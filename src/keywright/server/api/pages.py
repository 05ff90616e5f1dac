"""The documentation, as it came with this version: ``/docs/{page}``, ``/llms.txt``, and ``/.well-known/security.txt``."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Response

from keywright.errors import NotFound
from keywright.server.api.caller import Configured, Opened
from keywright.times import DAY, SECOND, rfc3339

router = APIRouter(include_in_schema=False)
PLAIN: Final = "text/plain; charset=utf-8"
MARKDOWN: Final = "text/markdown; charset=utf-8"
_SUMMARY: Final = "Keywright makes, checks and looks after the API keys of a product: library, server and command in one package."
_WORD: Final = re.compile(r"[a-z0-9_-]{2,}")
_PICTURE: Final = re.compile(r"^!\[[^\]]*\]\([^)]*\)\n+", re.MULTILINE)
#: Words that say nothing about what is asked.
_COMMON: Final = frozenset(
    [
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "can",
        "do",
        "does",
        "for",
        "from",
        "how",
        "if",
        "in",
        "is",
        "it",
        "its",
        "me",
        "my",
        "of",
        "on",
        "or",
        "that",
        "the",
        "there",
        "this",
        "to",
        "was",
        "what",
        "when",
        "where",
        "which",
        "who",
        "why",
        "will",
        "with",
        "you",
    ]
)
_MOST_FOUND: Final = 5
_ANNOUNCED: Final = "> The index of every page: [llms.txt](/llms.txt)\n\n"


@cache
def pages() -> dict[str, str]:
    """Every page by its name: in the wheel beside this package, in a checkout in ``docs/``. Pictures stay there."""
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "docs", package.parents[1] / "docs"):
        found = {file.stem: file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.md"))}
        if found:
            return {name: _PICTURE.sub("", text) for name, text in found.items()}
    return {}


@router.api_route("/docs/{page}", methods=["GET", "HEAD"])
def page(
    page: str,
    ask: Annotated[str | None, Query(max_length=200)] = None,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """One page: to a browser, HTML; to others plain as it is written; with ``.md``, as Markdown.

    With ``ask``, the paragraphs of all pages that fit best, this page's first: found by their words, composed by nobody.
    """
    name, dot, _ = page.rpartition(".md")
    text = pages().get(name if dot and page.endswith(".md") else page)
    if text is None:
        raise NotFound("there is no page of this name; /docs lists them")
    if ask is not None:
        return _said(found(ask, name if dot else page), MARKDOWN)
    if not dot and "text/html" in accept:
        return _shown(page)
    return _said(_ANNOUNCED + text, MARKDOWN if page.endswith(".md") else PLAIN)


@router.api_route("/llms.txt", methods=["GET", "HEAD"])
def llms(settings: Configured) -> Response:
    """The index, as programs that read documentation look for it."""
    return _said(index(settings.public_url), PLAIN)


@router.api_route("/llms-full.txt", methods=["GET", "HEAD"])
def llms_full(settings: Configured) -> Response:
    """Every page, one after the other, behind the index."""
    return _said("\n\n".join([index(settings.public_url), *pages().values()]), PLAIN)


@router.api_route("/.well-known/security.txt", methods=["GET", "HEAD"])
def security(settings: Configured, opened: Opened) -> Response:
    """Whom to tell of a weakness (RFC 9116), where the setting ``security_contact`` says so."""
    if not settings.security_contact:
        raise NotFound("no security_contact is set")
    today = opened.clock() // (DAY * SECOND) * DAY * SECOND
    lines = [f"Contact: {settings.security_contact}", f"Expires: {rfc3339(today + 365 * DAY * SECOND)}"]
    return _said("\n".join(lines) + "\n", PLAIN)


def index(base: str) -> str:
    """The list of pages, as llms.txt has it."""
    lines = ["# Keywright", "", f"> {_SUMMARY}", "", "## Pages", ""]
    for name, text in pages().items():
        about = _about(text)
        lines.append(f"- [{title(text)}]({base.rstrip('/')}/docs/{name}.md): {about}")
    return "\n".join(lines) + "\n"


def title(text: str) -> str:
    """A page's title."""
    return text.partition("\n")[0].lstrip("# ").strip()


def _about(text: str) -> str:
    """The first sentence of a page's first paragraph."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    paragraphs = [part for part in re.split(r"\n\s*\n", prose)[1:] if part and part[0] not in "\n#|>-"]
    first = " ".join(paragraphs[0].split()) if paragraphs else title(text)
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", first).replace("**", "")
    return re.split(r"(?<=[.:])\s", plain)[0].rstrip(":.") + "."


def found(ask: str, here: str) -> str:
    """What the pages say about the words of a question, in Markdown: excerpts, each with its page and heading."""
    words = {word for word in _WORD.findall(ask.lower()) if word not in _COMMON}
    ranked = sorted(
        (
            (-len(words & set(_WORD.findall(part.lower()))), name != here, name, heading, part)
            for name, text in pages().items()
            for heading, part in _paragraphs(text)
        )
    )
    lines = ["# Search results", "", "> Paragraphs of the documentation that hold the words asked for.", ""]
    for rank, _, name, heading, part in ranked[:_MOST_FOUND]:
        if rank:
            lines += [f"## [{title(pages()[name])}: {heading}](/docs/{name}.md)", "", part, ""]
    return "\n".join(lines if len(lines) > 4 else [*lines, "Nothing was found. [Every page](/llms.txt)", ""])


def _paragraphs(text: str) -> Iterator[tuple[str, str]]:
    """The paragraphs of a page, each under its heading."""
    heading = title(text)
    for part in re.split(r"\n\s*\n", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)):
        if part.startswith("#"):
            heading = part.lstrip("# ").strip()
        elif part.strip():
            yield heading, part.strip()


def _said(text: str, kind: str, policy: str = "") -> Response:
    headers = {
        "Content-Type": kind,
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": f"default-src 'none'; {policy}frame-ancestors 'none'",
        "Cache-Control": "public, max-age=300",
        "Vary": "Accept",
    }
    return Response(text, headers=headers)


def _shown(name: str) -> Response:
    from keywright.server.api import reading  # noqa: PLC0415  # few servers ever show a page

    names = [(one, title(text)) for one, text in pages().items()]
    policy = "style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    return _said(reading.page(name, pages()[name], names), "text/html; charset=utf-8", policy)


__all__ = ["PLAIN", "index", "pages", "router", "title"]
