"""The manual of all settings, made from the fields so that it can't be wrong.

`agni-node config docs` prints it; docs/operations.md carries it between two marks.
"""

from __future__ import annotations

from agniregistry_node.config import PRESETS, fields


def settings_manual() -> str:
    """Markdown: one table of settings, one of presets."""
    lines = [
        "| setting | default | meaning |",
        "|---|---|---|",
    ]
    for spec in fields():
        default = f"`{str(spec.default).lower() if spec.type is bool else spec.default}`"
        if spec.default == "":
            default = "empty"
        unit = f" {spec.about.unit}" if spec.about.unit else ""
        danger = f" **Danger:** {spec.about.danger}" if spec.about.danger else ""
        lines.append(f"| `{spec.name}` | {default}{unit} | {spec.about.text}{danger} |")
    lines += ["", "| preset | changes |", "|---|---|"]
    for name, values in PRESETS.items():
        changes = ", ".join(f"`{key}: {value}`" for key, value in values.items())
        lines.append(f"| `{name}` | {changes} |")
    return "\n".join(lines) + "\n"
