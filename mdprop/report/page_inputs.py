"""What was run, as tables of the page: input sets, settings, provenance."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mdprop.attacks.threat import Threat
from mdprop.report.aggregate import Summary
from mdprop.report.comparisons import MISSING, value_of
from mdprop.report.page_tables import Cell, Table
from mdprop.report.sets import NORM_LABELS, InputSet


def input_table(summary: Summary, sets: Sequence[InputSet], channel_std: Sequence[float]) -> Table:
    """Each input set: its goal, its radius in every unit, how it is made, how many queries it has.

    channel_std: the standard deviations, in pixels of [0, 1], that the network divides the channels by;
    with one of each channel a radius in the other units is a range of channels.
    """
    means = [f for f in Threat.model_fields if f not in ("goal", "norm", "epsilon", "units")]
    rows = []
    for s in sets:
        pixel, normalized = _radii(s, channel_std)
        counts = {f"{q['mean']:g}" for m in summary if (q := value_of(summary, m, s.name, "queries"))}
        texts = [
            s.threat.wants.label if s.threat else MISSING,
            NORM_LABELS[s.threat.norm] if s.threat else MISSING,
            _numbers(pixel),
            _numbers([255 * e for e in pixel]),
            _numbers(normalized),
            *(_means(s.threat, name) for name in means),
            " / ".join(sorted(counts)) or MISSING,
        ]
        rows.append((s.name, [Cell(text) for text in texts]))
    radius = ["ε in pixels of [0, 1]", "ε in 8-bit levels", "ε in standard deviations"]
    heads = ["goal", "norm", *radius, *(name.replace("_", " ") for name in means), "queries"]
    return Table("The input sets", heads, rows, corner="input set")


def _radii(s: InputSet, channel_std: Sequence[float]) -> tuple[list[float], list[float]]:
    """In pixels and in standard deviations; an ℓ2 radius is over all channels and has no second form."""
    if s.epsilon is None:
        return [], []
    if s.threat is not None and s.threat.norm == "l2":
        return [s.epsilon], []
    if s.threat is not None and s.threat.units == "normalized":
        return [s.epsilon * std for std in channel_std], [s.epsilon]
    return [s.epsilon], [s.epsilon / std for std in channel_std]


def _means(threat: Threat | None, name: str) -> str:
    """How a set is made, in words; a dash where that plays no part."""
    if threat is None or (name == "targets" and not threat.wants.many):
        return MISSING
    value = getattr(threat, name)
    if value is None:
        return {"step_ratio": "1 / steps", "start_noise": "ε", "branch": "answering"}.get(name, MISSING)
    return f"{value} ε" if name == "step_ratio" else _text(value)


def _numbers(values: Sequence[float]) -> str:
    """One number where the channels agree."""
    return " / ".join(dict.fromkeys(f"{value:.3g}" for value in values)) or MISSING


def settings_tables(settings: Mapping[str, Any]) -> list[Table]:
    """A table a section; the keys of nested mappings are joined by dots."""
    general = {key: value for key, value in settings.items() if not isinstance(value, Mapping)}
    sections = {key: value for key, value in settings.items() if isinstance(value, Mapping) and value}
    tables = []
    for name, section in {"general": general, **sections}.items():
        if section:
            rows = [(key, [Cell(_text(value))]) for key, value in _flat(section)]
            tables.append(Table(name, ["value"], rows, corner="key"))
    return tables


def _flat(section: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in section.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return rows


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value) or MISSING
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{32,}", value):
        return f"{value[:12]}…"  # of a digest
    return MISSING if value is None else str(value)
