"""One picture of a dashboard, as the lists of `dashboard.py` have it and as Grafana reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """One picture."""

    title: str
    unit: str
    """As Grafana calls it."""
    lines: tuple[tuple[str, str], ...]
    """Expression and legend of each line."""
    says: str = ""
    kind: str = "timeseries"
    red_from: float | None = None
    red_below: float | None = None


def as_json(panel: Panel) -> dict[str, Any]:
    """Without its place: that is the dashboard's to say."""
    targets = [
        {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": expression,
         "legendFormat": legend}
        for index, (expression, legend) in enumerate(panel.lines)
    ]  # fmt: skip
    field: dict[str, Any] = {"unit": panel.unit, "min": 0}
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red_from is not None:
        steps.append({"color": "red", "value": panel.red_from})
    if panel.red_below is not None:
        steps = [{"color": "red", "value": None}, {"color": "green", "value": panel.red_below}]
    field["thresholds"] = {"mode": "absolute", "steps": steps}
    if panel.kind == "timeseries":
        shown = "off" if len(steps) == 1 else "dashed"
        field["custom"] = {"fillOpacity": 10, "showPoints": "never",
                           "thresholdsStyle": {"mode": shown}}  # fmt: skip
    options: dict[str, Any] = {
        "legend": {"displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    if panel.kind == "stat":
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value"}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": field, "overrides": []},
        "options": options,
        "targets": targets,
    }
