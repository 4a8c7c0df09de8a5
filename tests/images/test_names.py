"""What `make images` makes is called as the chart and the operator ask for it."""

from __future__ import annotations

from pathlib import Path

import yaml

from agni_images.names import image_name
from agniregistry_operator.main import DEFAULT_IMAGE

CHART = Path(__file__).resolve().parents[2] / "charts/agniregistry"


def test_who_has_loaded_the_images_installs_without_a_value() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    asked_for = [
        f"{values[key]['repository']}:{values[key]['tag'] or chart['appVersion']}"
        for key in ("nodeImage", "image")
    ]
    assert asked_for == [image_name("agniregistry-node"), image_name("agniregistry-operator")]
    assert asked_for[0] == DEFAULT_IMAGE
