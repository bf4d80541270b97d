"""Complex numbers -> their real and imaginary parts."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from npu_compiler import complex_parts, complex_rules, spectra
from npu_compiler.complex_parts import Pair, Parts, Result
from npu_compiler.dtypes import REAL
from npu_compiler.errors import Unsupported
from npu_compiler.fourier import Array
from npu_compiler.ops import load_all
from npu_compiler.schemas import problem
from npu_compiler.target import Target
from torch_ir.functionalize import base_name
from torch_ir.ir import IR, Constant, Node, TensorSpec

#: An operation's name without its overload -> what it is on complex numbers.
RULES = {**complex_rules.RULES, **spectra.RULES}


def has_rule(op: str) -> bool:
    """Whether an ATen operation is taken on complex numbers."""
    return op.startswith("aten.") and base_name(op) in RULES


def complex_as_pairs(ir: IR, target: Target) -> IR:
    """Every operation on complex numbers in terms of real ones, by a rule for each. What no rule takes is
    taken apart by PyTorch's tables, where it is installed; else it stays, and is refused."""
    if not any(_is_complex(node, specs) for specs in (ir.values(),) for node in ir.nodes):
        return ir
    return _Rewriting(_simpler(ir)).run()


def _is_complex(node: Node, specs: dict[str, TensorSpec]) -> bool:
    dtypes = [out.dtype for out in node.outs]
    dtypes += [specs[value].dtype for value in node.inputs if value is not None]
    if node.op in load_all()[0]:
        return False
    return not REAL.keys().isdisjoint(dtypes) or base_name(node.op) in spectra.RULES


def _simpler(ir: IR) -> IR:
    """The graph with operations that have no rule replaced by others, where PyTorch's tables say how."""
    specs = ir.values()
    chosen = [node.name for node in ir.nodes if _is_complex(node, specs) and not has_rule(node.op)]
    known = {f"aten.{name}.{kind}" for name in RULES for kind in _OVERLOADS} | load_all()[1].keys()
    try:
        return ir.decomposed(known, chosen) if chosen else ir
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
    return ir


_OVERLOADS = ("default", "Tensor", "Scalar", "int", "dim", "self", "dim_IntList", "dtype", "Tensor_Scalar")


class _Rewriting:
    def __init__(self, ir: IR) -> None:
        self._ir = ir
        self._specs = ir.values()
        self._taken = set(self._specs) | {node.name for node in ir.nodes}
        self._pairs: dict[str, Pair] = {}
        self._whole = set(self._specs) - {name for node in ir.nodes for name in node.outputs}
        self._renamed: dict[str, str] = {}
        self._constants = dict(ir.constants)
        self._made: list[Node] = []

    def run(self) -> IR:
        for extracted in self._ir.nodes:
            inputs = tuple(None if v is None else self._renamed.get(v, v) for v in extracted.inputs)
            node = replace(extracted, inputs=inputs)
            if not _is_complex(node, self._specs) or not self._rewritten(node):
                for value in node.inputs:
                    self._complete(value)
                self._made.append(node)
                self._whole.update(node.outputs)
        for value in self._ir.results():
            self._complete(self._renamed.get(value, value))
        ir = self._ir
        outputs = [replace(item, value=self._renamed.get(item.value, item.value)) for item in ir.outputs]
        states = {
            name: replace(state, update=state.update and self._renamed.get(state.update, state.update))
            for name, state in ir.states.items()
        }
        return replace(
            ir, nodes=tuple(self._made), outputs=tuple(outputs), states=states, constants=self._constants
        )

    def _rewritten(self, node: Node) -> bool:
        """Rewrites a node by its rule; False where none takes it."""
        rule = RULES.get(base_name(node.op)) if node.op.startswith("aten.") else None
        if rule is None or problem(node) is not None:
            return False
        builder = self._parts(node)
        try:
            made = rule(builder)
        except (Unsupported, KeyError):
            return False
        results: list[Result] = made if isinstance(made, list) else [made]
        real = {
            name: result
            for name, result in zip(node.outputs, results, strict=False)
            if isinstance(result, str)
        }
        kinds = [isinstance(result, str) for result in results]
        if kinds[: len(node.outs)] != [out.dtype not in REAL for out in node.outs]:
            return False
        self._pairs.update(
            (name, result)
            for name, result in zip(node.outputs, results, strict=False)
            if not isinstance(result, str)
        )
        self._keep(replace(builder.node, outputs=tuple(real)), builder, list(real.values()))
        return True

    def _parts(self, node: Node) -> Parts:
        return Parts(node, self._specs, self._taken, self._ir.symbols, self._pairs, self._constant)

    def _keep(self, node: Node, builder: Parts, results: list[str]) -> None:
        builder.node = node
        nodes, renamed = builder.finish(results)
        self._made += nodes
        for made in nodes:
            self._specs.update(zip(made.outputs, made.outs, strict=True))
        self._renamed.update(renamed)

    def _complete(self, value: str | None) -> None:
        """Puts a complex value together again, for what reads it whole."""
        if value is None or value not in self._pairs or value in self._whole:
            return
        node = Node(value, "complex", (), (value,), (self._specs[value],), origin=(value,))
        builder = self._parts(node)
        self._keep(node, builder, [complex_parts.whole(builder, self._pairs[value])])
        self._whole.add(value)

    def _constant(self, kind: str, values: Array, dtype: str) -> str:
        data = values.astype(dtype).tobytes()
        name = f"{kind}.{dtype}.{hashlib.sha256(data).hexdigest()[:8]}"
        self._constants[name] = Constant(TensorSpec(values.shape, dtype), data)
        self._specs[name] = self._constants[name].spec
        self._taken.add(name)
        return name
