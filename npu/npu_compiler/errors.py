"""What the compiler raises. Each message names the thing, what was expected and the remedy."""

from __future__ import annotations

from dataclasses import dataclass

from torch_ir.ir import Node
from torch_ir.printer import node_text


class CompileError(ValueError):
    """The graph cannot be compiled as asked."""


@dataclass(frozen=True)
class Refusal:
    """Why one node cannot be compiled."""

    node: str
    op: str
    reason: str
    loc: str = ""
    remedy: str = ""
    origin: tuple[str, ...] = ()
    """The extracted nodes that it stands for, where the node is the compiler's own."""

    def __str__(self) -> str:
        place = f" ({self.loc})" if self.loc else ""
        remedy = f" Remedy: {self.remedy}." if self.remedy else ""
        return f"{self.node}{place}: {self.op}: {self.reason}.{remedy}"


class Unsupported(Exception):
    """Raised by a lowering or an emission to refuse the node at hand; collected into
    ``UnsupportedOpError``."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


def refusal(node: Node, error: Exception) -> Refusal:
    """The refusal of ``node`` for what its lowering or emission raised. Anything but ``Unsupported`` is a
    defect of the compiler, and says so."""
    origin = node.origin or (node.name,)
    if isinstance(error, Unsupported):
        return Refusal(node.name, node.op, error.reason, node.loc, error.remedy, origin)
    text = f": {error}" if str(error) else ""
    remedy = f"report it with this line: {node_text(node)}"
    return Refusal(node.name, node.op, f"internal: {type(error).__name__}{text}", node.loc, remedy, origin)


class UnsupportedOpError(CompileError):
    """Nodes that the target cannot run; ``refusals`` lists all of them."""

    def __init__(self, model: str, refusals: tuple[Refusal, ...]) -> None:
        self.refusals = refusals
        lines = "\n".join(f"  {refusal}" for refusal in refusals)
        super().__init__(
            f"{model}: {len(refusals)} node{'s' * (len(refusals) > 1)} cannot be compiled:\n{lines}"
        )
