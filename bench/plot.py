"""docs/benchmarks.svg: every bounded figure as a part of what it must be. Drawn by hand; no library knows it better."""

from collections.abc import Sequence
from html import escape

from figure import Figure

ROW, LEFT, WIDTH, WHOLE = 26, 420, 300, 860


def svg(figures: Sequence[Figure]) -> str:
    """The picture: a bar that ends left of the line is on the right side of it."""
    bounded = [figure for figure in figures if figure.must]
    height = ROW * len(bounded) + 50
    end = height - 20
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WHOLE} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WHOLE}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT + WIDTH}" y="16" text-anchor="middle">must</text>',
        *(line for place, figure in enumerate(bounded) for line in _bar(figure, 26 + place * ROW)),
        f'<line x1="{LEFT + WIDTH}" y1="20" x2="{LEFT + WIDTH}" y2="{end}" stroke="#000" stroke-dasharray="4 3"/>',
        f'<text x="{LEFT}" y="{height - 6}">shorter is better; the small mark is the aim</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _bar(figure: Figure, top: int) -> list[str]:
    assert figure.must is not None
    part = _part(figure, figure.value)
    colour = "#b3261e" if figure.missed else "#2e7d32"
    lines = [
        f'<text x="{LEFT - 8}" y="{top + 14}" text-anchor="end">{escape(figure.name)}</text>',
        f'<rect x="{LEFT}" y="{top + 4}" width="{min(part, 1.3) * WIDTH:.1f}" height="{ROW - 10}" fill="{colour}"/>',
        f'<text x="{LEFT + 1.32 * WIDTH:.0f}" y="{top + 14}">{figure.value:.3g}</text>',
    ]
    if figure.aim:
        at = LEFT + _part(figure, figure.aim) * WIDTH
        lines.append(f'<rect x="{at:.1f}" y="{top + 2}" width="2" height="{ROW - 6}" fill="#555"/>')
    return lines


def _part(figure: Figure, value: float) -> float:
    assert figure.must is not None
    return figure.must / value if figure.more_is_better else value / figure.must
