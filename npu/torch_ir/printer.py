"""The text form of a graph: one line per thing, complete, and read back exactly.

    ir resnet18 {pytorch_version="2.13.0", ir_version=1} symbol batch = 1..8 input x : f32[batch, 3, 224, 224]
    weight conv1.weight : f32[64, 3, 7, 7] bind p_conv1_weight = conv1.weight constant c_scale : f32[2] =
    "AACAPwAAgD8=" {key="scale"} state b_cache = cache : f32[4] {update="add_1", persistent=True} conv2d =
    aten.conv2d.default(x, p_conv1_weight, None) {stride=(2, 2)} : f32[batch, 64, 112, 112]  # m.py:12 max_0,
    max_1 = aten.max.dim(conv2d) {dim=1} : f32[batch, 112, 112], i64[batch, 112, 112] @max output logits =
    max_0

Names that are not plain words are JSON strings, constants are base64, expressions stand in ``<...>`` among
attributes, ``@`` gives a node's name where it is not that of its only output, ``from`` its origin,
``f32[2]/tiled`` a layout.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch_ir.errors import IRError
from torch_ir.expr import Dim, Expr, parse
from torch_ir.ir import IR, IR_VERSION, ITEM_SIZE, Attr, Constant, Guard, Node, Output, State, TensorSpec

_T = TypeVar("_T")
_SHORT = {name: re.sub(r"(b?)([fuic])[a-z]+(\d+)", r"\1\2\3", name) for name in ITEM_SIZE}
_LONG = {short: name for name, short in _SHORT.items()}
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NUMBER = re.compile(r"-?(?:inf|nan|\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
_RESERVED = ("None", "True", "False", "inf", "nan", "from")


def to_text(ir: IR) -> str:
    """The graph as text, ending with a newline. ``from_text`` gives an equal graph."""
    versions: dict[str, Attr] = {"pytorch_version": ir.pytorch_version, "ir_version": ir.ir_version}
    lines = [f"ir {_name(ir.name)} {_attrs(versions)}"]
    lines += [f"symbol {_name(name)} = {low}..{high}" for name, (low, high) in ir.symbols.items()]
    lines += [f"guard {json.dumps(guard.text)}" for guard in ir.guards]
    lines += [f"input {_name(name)} : {_spec(spec)}" for name, spec in ir.inputs.items()]
    lines += [f"weight {_name(name)} : {_spec(spec)}" for name, spec in ir.weights.items()]
    lines += [f"bind {_name(name)} = {_name(key)}" for name, key in ir.weight_name_mapping.items()]
    lines += [
        f'constant {_name(name)} : {_spec(constant.spec)} = "{_base64(constant.data)}"'
        + (f" {_attrs({'key': constant.key})}" if constant.key else "")
        for name, constant in ir.constants.items()
    ]
    lines += [_state(name, state) for name, state in ir.states.items()]
    lines += [node_text(node) for node in ir.nodes]
    lines += [f"output {_name(output.name)} = {_name(output.value)}" for output in ir.outputs]
    return "\n".join(lines) + "\n"


def node_text(node: Node) -> str:
    """The line of one node."""
    text = f"{', '.join(map(_name, node.outputs)) or '()'} = {_name(node.op)}("
    text += ", ".join("None" if value is None else _name(value) for value in node.inputs) + ")"
    text += f" {_attrs(node.attrs)}" if node.attrs else ""
    text += f" : {', '.join(map(_spec, node.outs)) or '()'}"
    text += f" @{_name(node.name)}" if node.outputs != (node.name,) else ""
    text += f" from({', '.join(map(_name, node.origin))})" if node.origin else ""
    return text + (f"  # {node.loc}" if node.loc else "")


def from_text(text: str) -> IR:
    """The graph that ``to_text`` wrote. Raises ``IRError`` naming the line at fault."""
    parts: dict[str, dict[str, Any]] = {kind: {} for kind in _KEYWORDS}
    outputs: list[Output] = []
    nodes: list[Node] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            keyword = next((word for word in _KEYWORDS if re.match(rf'{word} +["A-Za-z_]', line)), None)
            scanner = _Scanner(line)
            if keyword is None:
                nodes.append(_read_node(scanner))
                continue
            scanner.expect(keyword)
            name = scanner.name()
            item: Any = _read_guard(name) if keyword == "guard" else _KEYWORDS[keyword](scanner)
            scanner.end()
            if keyword == "output":
                outputs.append(Output(name, item))
            elif name in parts[keyword]:
                raise ValueError(f"{name} is there twice")
            else:
                parts[keyword][name] = item
        except (ValueError, KeyError, TypeError) as error:
            raise IRError(
                f"line {number}: {error}: {line.strip()[:120]!r} is not a line of a graph"
            ) from None
    if len(parts["ir"]) != 1:
        raise IRError('a graph in text form has one line `ir NAME {pytorch_version="...", ir_version=1}`')
    ((name, versions),) = parts["ir"].items()
    if versions.get("ir_version") != IR_VERSION:
        raise IRError(f"{name}: ir_version is {versions.get('ir_version')}; this npubin reads {IR_VERSION}")
    ir = IR(
        name,
        parts["input"],
        tuple(outputs),
        tuple(nodes),
        parts["weight"],
        parts["bind"],
        parts["constant"],
        parts["state"],
        parts["symbol"],
        str(versions.get("pytorch_version", "")),
        guards=tuple(parts["guard"].values()),
    )
    ir.verify("reading its text form")
    return ir


def _name(name: str) -> str:
    return name if _WORD.fullmatch(name) and name not in _RESERVED else json.dumps(name)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _spec(spec: TensorSpec) -> str:
    layout = "" if spec.layout == "row" else f"/{_name(spec.layout)}"
    return f"{_SHORT[spec.dtype]}[{', '.join(map(str, spec.shape))}]{layout}"


def _state(name: str, state: State) -> str:
    details: dict[str, Attr] = {} if state.update is None else {"update": state.update}
    if state.persistent:
        details["persistent"] = True
    if state.data is not None:
        details["data"] = _base64(state.data)
    return f"state {_name(name)} = {_name(state.key)} : {_spec(state.spec)} {_attrs(details)}"


def _attrs(attrs: Mapping[str, Attr]) -> str:
    return "{" + ", ".join(f"{_name(key)}={_attr(value)}" for key, value in attrs.items()) + "}"


def _attr(value: Attr) -> str:
    if isinstance(value, Expr):
        return f"<{value}>"
    if isinstance(value, tuple):
        return f"({', '.join(map(_attr, value))}{',' if len(value) == 1 else ''})"
    return json.dumps(value) if isinstance(value, str) else repr(value)


class _Scanner:
    """Reads one line from left to right. Methods raise ``ValueError`` where the line has something else."""

    def __init__(self, line: str) -> None:
        self._line = line
        self._at = 0

    def accept(self, text: str) -> bool:
        """Skips ``text`` if it comes next."""
        self._skip_blanks()
        found = self._line.startswith(text, self._at)
        self._at += len(text) if found else 0
        return found

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise ValueError(f"expected {text!r} at column {self._at + 1}")

    def end(self) -> None:
        self._skip_blanks()
        if self._at != len(self._line):
            raise ValueError(f"more text than expected at column {self._at + 1}")

    def rest(self) -> str:
        self._skip_blanks()
        found, self._at = self._line[self._at :], len(self._line)
        return found

    def match(self, pattern: re.Pattern[str], what: str) -> str:
        self._skip_blanks()
        found = pattern.match(self._line, self._at)
        if found is None:
            raise ValueError(f"expected {what} at column {self._at + 1}")
        self._at = found.end()
        return found.group()

    def until(self, end: str) -> str:
        at = self._line.find(end, self._at)
        if at < 0:
            raise ValueError(f"expected {end!r} after column {self._at + 1}")
        found, self._at = self._line[self._at : at], at + len(end)
        return found

    def name(self) -> str:
        if self.peek() == '"':
            return str(json.loads(self.match(_STRING, "a name")))
        return self.match(_WORD, "a name")

    def peek(self) -> str:
        self._skip_blanks()
        return self._line[self._at : self._at + 1]

    def items(self, read: Callable[[], _T], end: str) -> list[_T]:
        """What stands between here and ``end``, separated by commas."""
        found: list[_T] = []
        while not self.accept(end):
            found.append(read())
            if not self.accept(","):
                self.expect(end)
                break
        return found

    def spec(self) -> TensorSpec:
        short = self.match(_WORD, "a dtype")
        if short not in _LONG:
            raise ValueError(f"unknown dtype {short!r}")
        self.expect("[")
        shape = tuple(_dims(self.until("]")))
        layout = self.name() if self.accept("/") else "row"
        return TensorSpec(shape, _LONG[short], layout)

    def attrs(self) -> dict[str, Attr]:
        self.expect("{")
        return dict(self.items(self._pair, "}"))

    def _pair(self) -> tuple[str, Attr]:
        key = self.name()
        self.expect("=")
        return key, self.attr()

    def attr(self) -> Attr:
        for text, constant in (("None", None), ("True", True), ("False", False)):
            if self.accept(text):
                return constant
        if self.accept("<"):
            return parse(self.until(">"))
        if self.accept("("):
            return tuple(self.items(self.attr, ")"))
        if self.peek() == '"':
            return str(json.loads(self.match(_STRING, "a text")))
        number = self.match(_NUMBER, "a value")
        return int(number) if number.lstrip("-").isdigit() else float(number)

    def _skip_blanks(self) -> None:
        while self._line.startswith(" ", self._at):
            self._at += 1


def _dims(text: str) -> list[Dim]:
    """The sizes in "s0*4, min(s0, 2)": split at the commas outside parentheses."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [parse(part) for part in parts] if text.strip() else []


def _read_bytes(text: Attr) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except binascii.Error as error:
        raise ValueError(f"constants are base64 text: {error}") from None


def _read_symbol(scanner: _Scanner) -> tuple[int, int]:
    scanner.expect("=")
    low, separator, high = scanner.rest().partition("..")
    if not separator:
        raise ValueError("expected LOWER..UPPER")
    return int(low), int(high)


def _read_guard(text: str) -> Guard:
    relation = next((word for word in (" == ", " <= ") if word in text), "")
    left, _, right = text.partition(relation or "?")
    return Guard(parse(left), parse(right), relation.strip())


def _read_spec(scanner: _Scanner) -> TensorSpec:
    scanner.expect(":")
    return scanner.spec()


def _read_reference(scanner: _Scanner) -> str:
    scanner.expect("=")
    return scanner.name()


def _read_constant(scanner: _Scanner) -> Constant:
    spec = _read_spec(scanner)
    scanner.expect("=")
    data = _read_bytes(scanner.attr())
    return Constant(spec, data, str(scanner.attrs()["key"]) if scanner.peek() == "{" else "")


def _read_state(scanner: _Scanner) -> State:
    key, spec, details = _read_reference(scanner), _read_spec(scanner), scanner.attrs()
    update, data = details.get("update"), details.get("data")
    return State(
        key,
        spec,
        None if update is None else str(update),
        details.get("persistent") is True,
        None if data is None else _read_bytes(data),
    )


def _read_node(scanner: _Scanner) -> Node:
    outputs: list[str] = []
    if not scanner.accept("()"):
        outputs.append(scanner.name())
        while scanner.accept(","):
            outputs.append(scanner.name())
    scanner.expect("=")
    op = scanner.name()
    scanner.expect("(")
    inputs = scanner.items(lambda: None if scanner.accept("None") else scanner.name(), ")")
    attrs = scanner.attrs() if scanner.peek() == "{" else {}
    scanner.expect(":")
    outs: list[TensorSpec] = []
    if not scanner.accept("()"):
        outs.append(scanner.spec())
        while scanner.accept(","):
            outs.append(scanner.spec())
    name = scanner.name() if scanner.accept("@") else outputs[0]
    origin = scanner.items(scanner.name, ")") if scanner.accept("from(") else []
    loc = scanner.rest() if scanner.accept("#") else ""
    scanner.end()
    return Node(name, op, tuple(inputs), tuple(outputs), tuple(outs), attrs, loc, tuple(origin))


_KEYWORDS: Mapping[str, Callable[[_Scanner], Any]] = {
    "ir": lambda scanner: scanner.attrs(),
    "symbol": _read_symbol,
    "guard": lambda scanner: None,
    "input": _read_spec,
    "weight": _read_spec,
    "bind": _read_reference,
    "constant": _read_constant,
    "state": _read_state,
    "output": _read_reference,
}
