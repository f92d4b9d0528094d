"""A matplotlib figure as SVG that lives inside a page: its font, its ink, its light and dark."""

import io
import re
import warnings
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe, Ito 2008, as Wong 2011, doi:10.1038/nmeth.1618 prints it: told apart by colour-blind readers too.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK = "#010203"  # stands for the page's text colour
FAINT = "#040506"  # stands for the page's line colour
_PAGE_COLOURS = {INK: "currentColor", FAINT: "var(--line)"}
_SHORT = 22

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "font.size": 9,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
}


def draw(
    paint: Callable[[Axes], None], *, name: str, description: str, inches: tuple[float, float] = (4.0, 2.7)
) -> Markup:
    """Let `paint` fill the axes of a new figure, and give it as an `<svg>` element.

    Args:
        paint: draws on the axes; it uses PALETTE, INK and FAINT.
        name: distinguishes the figure in its page: every id in it starts with this.
        description: what the figure shows, for those who do not see it.
        inches: width and height.
    """
    file = io.StringIO()
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # the browser's fonts draw the text
        figure = Figure(figsize=inches, layout="constrained")
        paint(figure.add_subplot())
        figure.savefig(file, format="svg", transparent=True)
    return _inline(ElementTree.fromstring(file.getvalue()), name, description)


def shortened(text: str) -> str:
    """At most 22 characters of a name, so that it fits beside an axis."""
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 1]}…"


def _inline(svg: ElementTree.Element, name: str, description: str) -> Markup:
    """Fit matplotlib's stand-alone SVG into an HTML page: no namespaces, ids of its own, the page's colours."""
    for parent in svg.iter():
        for child in [child for child in parent if child.tag.endswith(("}metadata", "}style"))]:
            parent.remove(child)
    for element in svg.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(key): _value(_local(key), text, name) for key, text in element.attrib.items()}
    svg.attrib = {"viewBox": svg.attrib["viewBox"], "role": "img", "aria-label": description}
    return Markup(ElementTree.tostring(svg, encoding="unicode"))


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _value(key: str, text: str, name: str) -> str:
    if key == "id":
        return f"{name}-{text}"
    text = re.sub(r"^#|(?<=url\()#", f"#{name}-", text) if key in {"href", "clip-path"} else text
    for colour, page_colour in _PAGE_COLOURS.items():
        text = text.replace(colour, page_colour)
    return text
