"""The pictures of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import matplotlib as mpl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

mpl.use("Agg")
# After the backend is chosen, which needs no display.
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter

_DPI = 100
_MANY_DECADES = 3e3


class Point(NamedTuple):
    """A prediction beside what was measured, in milliseconds."""

    series: str
    measured: float
    predicted: float


class Roofline(NamedTuple):
    """What operations of one precision reach.

    Attributes:
        points: FLOPs a byte and 10^12 FLOPs a second, by kind.
        peak: rate that the device allows, 10^12 a second; 0 where it is unknown.
        bandwidth: 10^12 bytes a second; likewise.
    """

    points: Mapping[str, Sequence[tuple[float, float]]]
    peak: float
    bandwidth: float


def scatter(panels: Mapping[str, Sequence[Point]], title: str, path: Path) -> str:
    """Draws predicted against measured, a panel a figure, a colour a series.

    A panel without points is left out.

    Returns:
        The Markdown that shows the picture; so do the others.
    """
    panels = {name: points for name, points in panels.items() if points}
    canvas, axes = plt.subplots(
        1, len(panels), figsize=(5.5 * len(panels), 5.2), layout="constrained", squeeze=False
    )
    for axis, (name, points) in zip(axes[0], panels.items(), strict=True):
        for series in dict.fromkeys(point.series for point in points):
            own = [(p.measured, p.predicted) for p in points if p.series == series]
            axis.scatter(*zip(*own, strict=True), s=9, alpha=0.5, label=series)
        measured = [point.measured for point in points]
        ends = [min(measured), max(measured)]
        axis.plot(ends, ends, color="0.4", linewidth=1)
        axis.set(
            xscale="log", yscale="log", title=name, xlabel="measured, ms", ylabel="predicted, ms"
        )
        values = [value for point in points for value in (point.measured, point.predicted)]
        for one in (axis.xaxis, axis.yaxis):
            _plain_labels(one, max(values) / min(values))
        axis.legend(frameon=False)
    return _save(canvas, title, path)


def bars(
    panels: Mapping[str, Mapping[str, Mapping[str, float]]],
    title: str,
    path: Path,
    *,
    unit: str,
    line: float | None = None,
    log: bool = False,
) -> str:
    """Draws groups of bars that lie, so that their names can be read.

    Args:
        panels: by name, groups by name, lengths by the name of their series; a group may lack one.
        title: of the picture.
        path: of the file.
        unit: of the lengths.
        line: what they are held against.
        log: whether lengths lie along a logarithmic axis.
    """
    heights = [1.0 + 0.45 * len(panel) for panel in panels.values()]
    canvas, axes = plt.subplots(
        len(panels),
        1,
        figsize=(9.0, 0.8 + sum(heights)),
        layout="constrained",
        squeeze=False,
        height_ratios=heights,
    )
    for axis, (name, panel) in zip(axes[:, 0], panels.items(), strict=True):
        _bars(axis, panel)
        axis.set(title=name, xlabel=unit, xscale="log" if log else "linear")
        if log:
            lengths = [length for group in panel.values() for length in group.values()]
            _plain_labels(axis.xaxis, max(lengths) / max(min(lengths), 1e-9))
        if line is not None:
            axis.axvline(line, color="0.4", linewidth=1)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return _save(canvas, title, path)


def _bars(axis: Axes, panel: Mapping[str, Mapping[str, float]]) -> None:
    names = list(dict.fromkeys(series for group in panel.values() for series in group))
    step = 0.8 / len(names)
    for index, series in enumerate(names):
        lengths = {at: group[series] for at, group in enumerate(panel.values()) if series in group}
        places = [at + (index - (len(names) - 1) / 2) * step for at in lengths]
        axis.barh(places, list(lengths.values()), height=step, label=series)
    axis.set_yticks(range(len(panel)), list(panel))
    axis.invert_yaxis()


def curves(
    panels: Mapping[str, Mapping[str, Mapping[int, float]]],
    title: str,
    path: Path,
    *,
    x: str,
    y: str,
) -> str:
    """Draws curves, a panel a figure.

    Args:
        panels: by name, curves by name, heights by their place.
        title: of the picture.
        path: of the file.
        x: what places are.
        y: what heights are.
    """
    canvas, axes = plt.subplots(
        1, len(panels), figsize=(5.0 * len(panels), 4.2), layout="constrained", squeeze=False
    )
    for axis, (name, panel) in zip(axes[0], panels.items(), strict=True):
        for series, heights in panel.items():
            axis.plot(list(heights), list(heights.values()), marker="o", label=series)
        axis.set(title=name, xlabel=x, ylabel=y, ylim=(0, None))
        axis.set_xticks(sorted({place for heights in panel.values() for place in heights}))
        axis.legend(frameon=False)
    return _save(canvas, title, path)


def rooflines(panels: Mapping[str, Roofline], title: str, path: Path) -> str:
    """Draws rates over intensities, a panel a figure, a colour a kind, below what is allowed."""
    canvas, axes = plt.subplots(
        1, len(panels), figsize=(5.5 * len(panels), 4.6), layout="constrained", squeeze=False
    )
    for axis, (name, panel) in zip(axes[0], panels.items(), strict=True):
        for kind, points in panel.points.items():
            axis.scatter(*zip(*points, strict=True), s=9, alpha=0.5, label=kind)
        if panel.peak and panel.bandwidth:
            ridge = panel.peak / panel.bandwidth
            intensities = [x for points in panel.points.values() for x, _ in points]
            ends = sorted({min(*intensities, ridge), ridge, max(*intensities, ridge)})
            allowed = [min(panel.peak, panel.bandwidth * x) for x in ends]
            axis.plot(ends, allowed, color="0.4", linewidth=1)
        axis.set(
            xscale="log",
            yscale="log",
            title=name,
            xlabel="FLOPs a byte",
            ylabel="TFLOP/s",
        )
        axis.legend(frameon=False)
    return _save(canvas, title, path)


def lines(
    panels: Mapping[str, Mapping[str, Mapping[int, float]]], title: str, path: Path, *, x: str
) -> str:
    """Draws curves one below the other, each over the same places; arguments as above."""
    canvas, axes = plt.subplots(
        len(panels),
        1,
        figsize=(9.0, 0.6 + 1.8 * len(panels)),
        layout="constrained",
        squeeze=False,
        sharex=True,
    )
    for axis, (name, panel) in zip(axes[:, 0], panels.items(), strict=True):
        for heights in panel.values():
            axis.plot(list(heights), list(heights.values()))
        axis.set(ylabel=name)
    axes[-1, 0].set(xlabel=x)
    return _save(canvas, title, path)


def _plain_labels(axis: Axis, span: float) -> None:
    """Labels a logarithmic axis by plain numbers, as many as have room.

    Args:
        axis: of the picture.
        span: largest value over the smallest.
    """
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if span < _MANY_DECADES else (1.0,)))
    axis.set_major_formatter("{x:g}")
    # Those of minor ticks run into each other.
    axis.set_minor_formatter(NullFormatter())


def paragraphs(*pictures: str) -> Iterator[str]:
    """Yields the lines that show pictures one below the other."""
    for picture in pictures:
        yield picture
        yield ""


def _save(canvas: Figure, title: str, path: Path) -> str:
    canvas.suptitle(title)
    canvas.savefig(path, dpi=_DPI)
    plt.close(canvas)
    return f"![{title}]({path.name})"
