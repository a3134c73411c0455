"""Maps of the embedding space, before and after an attack."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes

from mdprop.data.stores.examples import Examples, Plane
from mdprop.report.csvs import Row, csv_text
from mdprop.report.drawing import COLOURS, MARKERS, TEXT, Plot, drawn


def plane_plots(examples: Mapping[str, Examples]) -> list[Plot]:
    """The plane of each row that has one: clean images, and where the attack takes its queries."""
    return [_plane_plot(row, found, found.plane) for row, found in examples.items() if found.plane]


def _plane_plot(row: str, examples: Examples, plane: Plane) -> Plot:
    labels = sorted({label for label, _, _ in plane.points})
    looks = {label: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, label in enumerate(labels)}
    names = [examples.classes[label] for label in labels]

    def draw(axes: Axes) -> None:
        for label in labels:
            colour, marker = looks[label]
            own = [(x, y) for at, x, y in plane.points if at == label]
            axes.plot(*zip(*own, strict=True), linestyle="", marker=marker, markersize=4.5, color=colour,
                      fillstyle="none", label=f" {examples.classes[label]}")  # fmt: skip
        for move in plane.moves:
            colour, marker = looks[move.label]
            line = zip(move.before, move.after, strict=True)
            axes.plot(*line, color=colour, linewidth=0.7)
            axes.plot(*move.after, linestyle="", marker=marker, markersize=4.5, color=colour,
                      markeredgecolor=TEXT, markeredgewidth=0.4)  # fmt: skip
        axes.set_aspect("equal", adjustable="datalim")
        axes.set(xlabel=f"first component ({100 * plane.explained[0]:.0f} % of the variance)",
                 ylabel=f"second ({100 * plane.explained[1]:.0f} %)")  # fmt: skip

    hits = sum(move.hit for move in plane.moves)
    title = f"{row}: clean and attacked embeddings"
    alt = (
        f"Map of the embeddings of {row} in two dimensions: {len(plane.points)} clean images of the classes "
        f"{', '.join(names)}, and the way of {len(plane.moves)} queries under attack; {hits} still hit."
    )
    rows: list[Row] = [("clean", None, label, x, y, None) for label, x, y in plane.points]
    rows += [("before", m.id, m.label, *m.before, None) for m in plane.moves]
    rows += [("after", m.id, m.label, *m.after, int(m.hit)) for m in plane.moves]
    csv = csv_text(["state", "query", "label", "x", "y", "hit"], rows)
    note = f"{hits} of {len(plane.moves)} attacked queries still hit."
    return Plot(title, alt, drawn(title, alt, draw, names), csv, note)
