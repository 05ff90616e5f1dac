"""A colour of somebody's own, made fit to be read: in light and in dark. Pure."""

import re
from typing import Final

#: How much a colour must stand out from what is beneath it, and what is written on it from the colour (WCAG 2.2, 1.4.3).
LEAST: Final = 4.5
#: What the console is drawn on: white, and the lightest of what is dark.
LIGHT: Final = "#ffffff"
DARK: Final = "#262626"
_INK_ON_LIGHT: Final = "#0a0a0a"
_STEPS: Final = 64
_COLOUR: Final = re.compile(r"\A#[0-9a-fA-F]{6}\Z")


def is_colour(text: str) -> bool:
    """Whether a text is a colour as ``#rrggbb``, and nothing else that a style could hold."""
    return _COLOUR.match(text) is not None


def contrast(one: str, other: str) -> float:
    """How much two colours differ, from 1 to 21, as WCAG reckons it."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def fit(colour: str, ground: str) -> str:
    """The colour itself, if it stands out from a ground, or the nearest that does: darker on light, lighter on dark."""
    towards = "#000000" if _luminance(ground) > 0.5 else "#ffffff"
    shades = (_mixed(colour, towards, step / _STEPS) for step in range(_STEPS + 1))
    return next(shade for shade in shades if contrast(shade, ground) >= LEAST)


def style(colour: str) -> str:
    """The style that gives the console a colour: of buttons, and of the ring around what has the focus."""
    light, dark = fit(colour, LIGHT), fit(colour, DARK)
    return (
        f":root {{ --primary: {light}; --primary-foreground: {LIGHT}; --ring: {light}; }}\n"
        f".dark {{ --primary: {dark}; --primary-foreground: {_INK_ON_LIGHT}; --ring: {dark}; }}\n"
    )


def _mixed(colour: str, towards: str, part: float) -> str:
    pairs = zip(_parts(colour), _parts(towards), strict=True)
    return "#" + "".join(f"{round(have + (want - have) * part):02x}" for have, want in pairs)


def _parts(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5))


def _luminance(colour: str) -> float:
    red, green, blue = (_linear(part / 255) for part in _parts(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(part: float) -> float:
    linear: float = part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
    return linear
