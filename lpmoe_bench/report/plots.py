"""What all plots share: their looks, files for papers, and SVG that the policy of a page allows."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

from lpmoe_bench.errors import UsageError
from lpmoe_bench.scoring.views import INSTALL

SOFT = "#57606a"
FRONT, BEATEN = "#0a5cad", "#6b7280"
FORMATS = (".svg", ".pdf", ".png", ".pgf")
STYLE = Path(__file__).parent / "plots.mplstyle"
Element = ElementTree.Element
# A hundredth of a pixel is enough, and matplotlib writes six digits of each number.
MANY_DIGITS = re.compile(r"(\.\d\d)\d+")
PREFIX = "figure-of-page-"  # stands before every id, until it is known which plot this is
ROUNDED = ("d", "x", "y", "transform", "points", "width", "height")
# Control signs, halves of signs, and what turns the direction of the text behind it: a name could
# disguise what follows.
BAD = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def need_plots() -> None:
    """Raise UsageError, with the line that installs them, where the packages of plots are not."""
    # Looked for and not loaded, which takes a second: a page without a plot needs neither.
    if not all(map(find_spec, ("matplotlib", "adjustText"))):
        raise UsageError(f"plots need matplotlib and adjustText; install them with: {INSTALL}")


@contextmanager
def plot_style() -> Iterator[None]:
    """Draw within this as all plots here look; letters that no font has are no warning."""
    from matplotlib import rc_context

    _made_axes.cache_clear()  # those of another style
    with rc_context(fname=STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def new_axes(*inches: float) -> Any:
    """Return empty axes in a figure of their own, with 5 ticks at most.

    The next call with the same sizes empties them again: a plot is written before that.

    Args:
        inches: width and height, and the margins left, bottom, right and top.
    """
    from matplotlib.transforms import Bbox

    axes = _made_axes(*inches)
    legend = axes.get_legend()
    for artist in [*axes.lines, *axes.collections, *axes.texts, *([legend] if legend else [])]:
        artist.remove()
    axes.dataLim = Bbox.null()
    axes.set(title="", xlabel="", xscale="linear", yscale="linear")
    axes.set(xlim=(0, 1), ylim=(0, 1), autoscale_on=True)  # what was, would alter roundings
    axes.locator_params(nbins=5)
    return axes


@lru_cache
def _made_axes(
    width: float, height: float, left: float, bottom: float, right: float, top: float
) -> Any:
    # Ticks and their labels take longer to make than all else in a plot: they are made once.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=72)
    FigureCanvasAgg(figure)  # measures texts; there is no display, and no state of pyplot
    inside = (width - left - right) / width, (height - bottom - top) / height
    axes = figure.add_axes((left / width, bottom / height, *inside))
    axes.yaxis.set_label_coords(0, 0.5)  # there is none, but its place would be measured each time
    return axes


@dataclass
class Plot:
    """A figure of matplotlib, and what is seen in it in words.

    marks: what belongs to a method, by the start of its ids: (the name that filters look at, words
    to be shown where the pointer rests). unnamed: labels that found no room.
    """

    figure: Any
    title: str
    marks: dict[str, tuple[str, str]] = field(default_factory=dict)
    unnamed: tuple[str, ...] = ()


def clean(text: str) -> str:
    """Replace what no file may hold, or what deceives."""
    return BAD.sub("\ufffd", text)


def shorten(text: str, most: int) -> str:
    """Cut the end off a text of more than `most` letters; what no file may hold is replaced."""
    text = clean(text)
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


# Figures as files.


def file_format(option: str, path: Path) -> str:
    """Return the ending of a file to write, such as .svg; raises UsageError for another one."""
    if (suffix := path.suffix.lower()) not in FORMATS:
        raise UsageError(
            f"{option} {path} ends with none of {', '.join(FORMATS)}; name one of them"
        )
    return suffix


def rendered(figure: Any, suffix: str, dpi: int = 300) -> bytes:
    """Return a figure as the bytes of a file, the same for the same figure: it holds no date.

    Raises UsageError for a .pgf without a LaTeX that measures its texts.
    """
    from matplotlib.backends.backend_pgf import LatexError

    undated = {".svg": {"metadata": {"Date": None}}, ".pdf": {"metadata": {"CreationDate": None}}}
    if suffix == ".pgf":
        _escape(figure)
    data = BytesIO()
    try:
        figure.savefig(data, format=suffix[1:], dpi=dpi, **undated.get(suffix, {}))
    except (FileNotFoundError, LatexError) as error:
        raise UsageError(
            f"a .pgf is made with LaTeX, which is missing or cannot set a name ({error}); name a "
            f"file .pdf instead"
        ) from None
    return data.getvalue()


def _escape(figure: Any) -> None:
    """Write all texts of a figure as LaTeX wants them."""
    import shutil

    from matplotlib import rcParams
    from matplotlib.text import Text

    from lpmoe_bench.tables.latex import latex_text

    systems = ("pdflatex", "xelatex", "lualatex")
    rcParams["pgf.texsystem"] = next(filter(shutil.which, systems), "pdflatex")
    for text in figure.findobj(Text):
        plain = latex_text(text.get_text()).replace("//", "/\\kern-.1em/")
        text.set_text(plain.replace("↑", r"$\uparrow$").replace("↓", r"$\downarrow$"))


# Figures as parts of a page.


def to_svg(plot: Plot, key: str) -> Markup:
    """Return a plot as an element of a page, which is as wide as its place; `key`: unique there."""
    return to_svgs(plot, 1, key)[0]


def to_svgs(plot: Plot, rows: int, key: str) -> list[Markup]:
    """Return a plot for each row: what all share, and what has ids `row-NUMBER-` of that row."""
    root = _parsed(plot)
    parts = [""] * rows
    shared = True
    for parent in list(root.iter()):
        for place, child in enumerate(list(parent)):
            if found := re.match(r"row-(\d+)-", child.get("data-id", "")):
                parts[int(found[1])] += ElementTree.tostring(child, "unicode")
                parent.remove(child)
                if shared:
                    parent.insert(place, Element("own"))
                    shared = False
    before, _, after = ElementTree.tostring(root, "unicode").partition("<own />")
    return [
        Markup(
            re.sub(r' data-id="[^"]*"', "", before + part + after).replace(PREFIX, f"{key}-{n}-")
        )
        for n, part in enumerate(parts)
    ]


def _parsed(plot: Plot) -> Element:
    """Return the drawn figure as elements without styles, names of spaces and needless ids.

    The policy of the page lets no style act that is not in its head; SVG has attributes instead.
    """
    from matplotlib import rc_context

    data = BytesIO()
    with rc_context({"svg.fonttype": "none"}):  # text stays text, in the typeface of the page
        # Without a date: equal records give equal pages.
        plot.figure.savefig(data, format="svg", metadata={"Date": None}, transparent=True)
    root = ElementTree.fromstring(data.getvalue())
    shared = Element("defs")  # a shape is written where it first stands, and referred to later
    for one in list(root.iter()):
        one.tag = one.tag.rsplit("}", 1)[-1]
        one.text, one.tail = (one.text or "").strip() or None, None
        one.attrib = dict(_attributes(one.attrib))
    for parent in list(root.iter()):
        for one in list(parent):
            if one.tag in ("metadata", "defs"):
                parent.remove(one)
                shared.extend(part for part in one if one.tag == "defs" and part.tag != "style")
    for one in list(root.iter()):
        _mark(one, plot)
    root.insert(0, _title(plot.title))
    root.insert(1, shared)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "stroke-linejoin": "round"}
    return root


def _attributes(found: dict[str, str]) -> Iterator[tuple[str, str]]:
    for key, value in found.items():
        name = key.rsplit("}", 1)[-1]
        if name == "style":
            for rule in filter(None, map(str.strip, value.split(";"))):
                property_, _, setting = rule.partition(":")
                # Texts take the typeface of the page.
                if property_ != "font-family":
                    yield property_.strip(), setting.strip()
        elif name == "id":
            yield "data-id", value
            if re.fullmatch(r"[mpC][0-9a-f_]+", value):  # others are never referred to
                yield "id", PREFIX + value
        elif name in ROUNDED:
            yield name, MANY_DIGITS.sub(r"\1", value).replace("\n", "")
        elif name in ("href", "clip-path"):
            yield name, value.replace("#", f"#{PREFIX}")
        else:
            yield name, value


def _mark(one: Element, plot: Plot) -> None:
    """Tell filters and the pointer whose an element is.

    What has the id `mark-each-...` is a collection: an element for every row, in their order.
    """
    found = re.match(r"(mark|row)-(\w+)-", one.get("data-id", ""))
    if found is None:
        return
    of_rows = [(found[0], one)]
    if found[2] == "each":
        drawn = (part for part in one.iter() if part.tag == "use" or part.get("clip-path"))
        of_rows = [(f"mark-{n}-", part) for n, part in enumerate(drawn)]
    for key, part in of_rows:
        if key in plot.marks:
            name, words = plot.marks[key]
            part.attrib |= {"class": "mark", "data-name": clean(name)}
            part.insert(0, _title(words))
            for text in part.iter("text"):  # a white edge, for names that lie over lines
                text.attrib |= {"paint-order": "stroke", "stroke": "#fff", "stroke-width": "2"}


def _title(words: str) -> Element:
    title = Element("title")
    title.text = clean(words)
    return title
