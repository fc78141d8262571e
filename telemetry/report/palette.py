"""Colours of pages and figures, by name.

`c0` to `c8` are lineages, the last one all that have no colour of their own; `e0` to `e8` are ends of lives, `e0`
survival, `e7` other causes and `e8` censored lives. Text is `ink`, `soft` or `accent` on `paper` or `card`, with a
contrast of 4.5 to 1 at least.
"""

from collections.abc import Callable, Mapping

Paint = Callable[[str], str]
"""The CSS value of a colour's name."""


MARKS = (*(f"c{number}" for number in range(9)), *(f"e{number}" for number in range(9)), "accent")
"""Colours that marks of a figure may have."""


def _colours(plain: str, lineages: str, ends: str) -> dict[str, str]:
    names = (
        "paper",
        "card",
        "ink",
        "soft",
        "line",
        "accent",
        *(f"c{n}" for n in range(9)),
        *(f"e{n}" for n in range(9)),
    )
    return dict(zip(names, f"{plain} {lineages} {ends}".split(), strict=True))


LIGHT: Mapping[str, str] = _colours(
    "#fbfaf7 #fff #20241f #5c6259 #e2e0d8 #1d7a52",
    "#1d7a52 #c46a11 #3d6fb6 #a8437f #8a7a1a #6f56b5 #2b8c99 #b0432f #9a9c94",
    "#8fc7a4 #c46a11 #7b4a9c #3d6fb6 #b0432f #8a7a1a #2b8c99 #8d8d86 #c9c7bf",
)
DARK: Mapping[str, str] = _colours(
    "#151815 #1d211d #e6e8e1 #9aa197 #333933 #5fc795",
    "#5fc795 #eda257 #84aeea #e08bbb #d0c05a #b09cf0 #68c6d3 #ec8773 #727971",
    "#3f7d5a #eda257 #b48ad0 #84aeea #ec8773 #d0c05a #68c6d3 #8d938a #525852",
)


def by_theme(name: str) -> str:
    """A colour of the page, light or dark as its reader wants it."""
    return f"var(--{name})"


def on_paper(name: str) -> str:
    """A colour of a figure that stands alone: light, because it is printed or pasted into a page."""
    return LIGHT[name]
