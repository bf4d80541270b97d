"""Pictures of graphs as text."""

from __future__ import annotations

import json
from collections.abc import Sequence

FORMATS = ("mermaid", "dot")


def drawn(nodes: Sequence[str], edges: Sequence[tuple[str, str, str]], form: str) -> str:
    """Nodes, and edges with their labels, as text in one of ``FORMATS``."""
    if form == "dot":
        body = [f"  {json.dumps(name)};" for name in nodes]
        body += [f"  {json.dumps(start)} -> {json.dumps(end)} [label={json.dumps(label)}];"
                 for start, end, label in edges]
        return "\n".join(["digraph build {", "  rankdir=LR;", *body, "}", ""])
    short = {name: f"n{number}" for number, name in enumerate(nodes)}
    body = [f'    {short[name]}["{name}"]' for name in nodes]
    body += [f"    {short[start]} -->{f'|{label}|' if label else ''} {short[end]}"
             for start, end, label in edges]
    return "\n".join(["graph LR", *body, ""])
