"""Panels, legend and colours shared by all figures."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

DPI = 150
TITLE_WIDTH = 44  # characters that fit above one panel
LEGEND_WIDTH, LEGEND_HEIGHT = 3.2, 0.18  # inches that a long name needs; 3 lines have room
# Okabe and Ito's palette, safe for the common colour blindnesses; black is kept for references.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
DASHES = ("-", "--", ":", "-.")
GREY = "#BBBBBB"
TOLD_APART = 2 * len(COLOURS)  # most rows of one panel with distinct styles
OTHERS = {"color": GREY, "linestyle": "-", "linewidth": 0.8, "zorder": 1, "label": "other rows"}


def grid(count: int, *, columns: int) -> tuple[Figure, list[Axes]]:
    """Make a figure of `count` panels, row by row."""
    columns = min(columns, count)
    lines = math.ceil(count / columns)
    # Room for the legend below and two title lines above, whatever the number of panels.
    figure = Figure(figsize=(max(3.8 * columns, 6.5), 3.1 * lines + 1.3), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def headline(axis: Axes, *lines: str) -> None:
    """Write lines above a panel, broken where they are too long."""
    axis.set_title("\n".join(textwrap.fill(line, TITLE_WIDTH) for line in lines), fontsize=9.5)


def finish(figure: Figure, title: str) -> Figure:
    """Add the title and one legend for all panels."""
    handles: dict[str, Artist] = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.suptitle(title)
    width, height = figure.get_size_inches()
    columns = int(width / LEGEND_WIDTH)
    figure.set_figheight(height + LEGEND_HEIGHT * max(0, math.ceil(len(handles) / columns) - 3))
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=columns,
        fontsize=8.5,
    )
    return figure


def styles(quality: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Choose each row's style: all rows are distinct, or at least the best `TOLD_APART` of them.

    Args:
      quality: quality of each row by label, higher is better; only its order counts. Styles follow
        the order of rows.
    """
    best = sorted(quality, key=lambda label: -quality[label])[:TOLD_APART]
    shown = enumerate(label for label in quality if label in best)
    told_apart = {label: {**style(number), "label": label} for number, label in shown}
    return {label: told_apart.get(label, OTHERS) for label in quality}


def style(number: int) -> dict[str, Any]:
    """Return colour and dashes of the n-th row: still distinct after the colours are used up."""
    dashes = DASHES[number // len(COLOURS) % len(DASHES)]
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": dashes}
