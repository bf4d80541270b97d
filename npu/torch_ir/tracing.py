"""What PyTorch's decomposition tables say of one operation, as a graph. PyTorch is imported when it is
needed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from torch_ir.calling import arguments, converter, overload
from torch_ir.expr import Atom, Expr, symbol
from torch_ir.functionalize import NotSimpleError, functionalize, live_nodes
from torch_ir.fx_reader import read_graph, spec_of
from torch_ir.ir import IR, Attr, Constant, Output

#: A symbol's size while tracing, where its bounds allow it. Nothing may depend on it.
_HINT = 37


class Tracing:
    """Traces the decomposition of a graph's only node, on tensors without memory and with sizes as
    expressions over the graph's symbols. Operations that are not ``known`` decompose, and nothing else."""

    def __init__(self, ir: IR, known: frozenset[str]) -> None:
        import torch
        from torch.fx.experimental.symbolic_shapes import ShapeEnv

        self._torch, self._ir, self._known = torch, ir, known
        (self._node,) = ir.nodes
        self._operation = overload(torch, self._node.op)
        self._environment = ShapeEnv()
        self._mode = torch._subclasses.FakeTensorMode(shape_env=self._environment, allow_non_fake_inputs=True)
        self._sizes: dict[str, Any] = {}
        self._active: set[Any] = set()

    def run(self) -> IR:
        """A graph from the node's inputs to its outputs, with the same names.

        Raises ``NotImplementedError`` for an operation whose results differ from call to call and for a
        decomposition that holds for some sizes only, and whatever PyTorch's functions raise.
        """
        from torch.fx.experimental.proxy_tensor import make_fx

        torch, ir = self._torch, self._ir
        if torch.Tag.nondeterministic_seeded in self._operation.tags and not self._drops_nothing():
            raise NotImplementedError("its results differ from call to call")
        carriers = [self._carrier(name) for name in ir.symbols]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # a library's own operations, as for recurrent layers, are no simpler ones
            with self._mode, torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
                tensors = [
                    torch.empty([self._size(dim) for dim in spec.shape], dtype=getattr(torch, spec.dtype))
                    for spec in ir.inputs.values()
                ]
                guards = len(self._environment.guards)
                table = self._table()
                given = [*carriers, *tensors]
                module = make_fx(
                    lambda *values: self._call(values[len(carriers) :]),
                    decomposition_table=table,
                    pre_dispatch=True,
                )(*given)
                try:
                    found = self._read(module)
                except NotSimpleError:  # in-place operations; without them composite ones decompose too
                    functional = torch.func.functionalize(module, remove="mutations")
                    found = self._read(make_fx(functional, decomposition_table=table)(*given))
        if len(self._environment.guards) > guards:
            raise NotImplementedError("its decomposition depends on sizes that are symbols")
        return found

    def _drops_nothing(self) -> bool:
        """Whether dropout, by which a recurrent layer's results may differ, is off."""
        attrs = self._node.attrs
        return "dropout" in attrs and (attrs["dropout"] == 0 or attrs.get("train") is False)

    def _carrier(self, name: str) -> Any:
        """A vector whose length is the symbol, so that tracing knows it."""
        from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext

        low, high = self._ir.symbols[name]
        context = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC], constraint_sizes=[None])
        real = self._torch.empty(min(max(_HINT, low), high), device="meta")
        carrier = self._mode.from_tensor(real, symbolic_context=context)
        (size,) = carrier.shape
        self._environment.constrain_symbol_range(size.node.expr, max(low, 2), high)
        self._sizes[name] = size
        return carrier

    def _size(self, dim: Attr) -> Any:
        """An expression over PyTorch's symbols."""
        if not isinstance(dim, Expr):
            return dim
        total: Any = 0
        for monomial, factor in dim.terms:
            term: Any = factor
            for atom in monomial:
                term = term * self._atom(atom)
            total = total + term
        return total

    def _atom(self, atom: Atom) -> Any:
        if atom.op == "symbol":
            return self._sizes[atom.name]
        first, *others = (self._size(arg) for arg in atom.args)
        for other in others:
            if atom.op in ("min", "max"):
                first = (self._torch.sym_min if atom.op == "min" else self._torch.sym_max)(first, other)
            else:
                first = first // other if atom.op == "//" else first % other
        return first

    def _call(self, tensors: tuple[Any, ...]) -> list[Any]:
        torch, node = self._torch, self._node
        values = dict(zip(self._ir.inputs, tensors, strict=True))
        inputs = [None if name is None else values[name] for name in node.inputs]
        convert = converter(torch, self._size, lambda kind: getattr(torch, kind), "cpu")
        args, kwargs = arguments(self._operation, inputs, node.attrs, convert, torch.device("cpu"))
        result = self._operation(*args, **kwargs)
        return [result] if isinstance(result, torch.Tensor) else list(result)[: len(node.outputs)]

    def _table(self) -> dict[Any, Callable[..., Any]]:
        """What stands for every operation that is not known: its kernel where that is made of other
        operations, else PyTorch's function for it; the ATen call that a primitive wraps.

        NOTE: functions for composite operations may have other parameters than the operation
        (``var.default`` passes ``unbiased`` as ``dim``, ``nll_loss`` a number for the name of a reduction).
        """
        import torch._prims
        from torch._decomp import decomposition_table

        table = {
            operation: self._once(operation, operation.decompose if operation._can_decompose() else function)
            for operation, function in decomposition_table.items()
            if str(operation) not in self._known and hasattr(operation, "_schema")
        }
        table.setdefault(self._operation, self._once(self._operation, self._operation.decompose))
        for primitive in vars(torch._prims).values():
            wrapped = getattr(primitive, "impl_aten", None)
            if wrapped is not None:
                table[primitive] = wrapped
        return table

    def _once(self, operation: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, which may call ``operation`` as it is: a table's entry may go round in a circle."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if operation in self._active:
                return NotImplemented
            self._active.add(operation)
            try:
                return function(*args, **kwargs)
            finally:
                self._active.discard(operation)

        return call

    def _read(self, module: Any) -> IR:
        """The traced graph in our terms."""
        tensors = self._constants_as_inputs(module)
        placeholders = [node.name for node in module.graph.nodes if node.op == "placeholder"]
        carriers = [f"size.{name}" for name in self._ir.symbols]
        constants = [f"constant.{index}" for index in range(len(tensors))]
        names = dict(zip(placeholders, [*constants, *carriers, *self._ir.inputs], strict=True))
        symbols = {str(size.node.expr): symbol(name) for name, size in self._sizes.items()}
        graph = read_graph(SimpleNamespace(graph_module=module), names, symbols, lambda node: "")
        outputs = [value for value in graph.outputs if value is not None]
        result = functionalize(graph.nodes, graph.specs, [*names.values()], outputs)
        results = [result.now(value) for value in outputs]
        nodes = live_nodes(result.nodes, results)
        read = {value for node in nodes for value in node.inputs} | set(results)
        if any(node.op == self._node.op for node in nodes):
            raise NotImplementedError("it decomposes into itself")
        if any(result.now(name) != name for name in names.values()):
            raise NotImplementedError("it changes its inputs")
        return IR(
            "",
            self._ir.inputs,
            tuple(Output(f"y{index}", value) for index, value in enumerate(results)),
            nodes,
            constants={
                name: self._constant(tensor)
                for name, tensor in zip(constants, tensors, strict=True)
                if name in read
            },
            symbols=self._ir.symbols,
        )

    def _constants_as_inputs(self, module: Any) -> list[Any]:
        """Puts the tensors that the decomposition made itself in front of the graph's inputs."""
        tensors = []
        first = next(iter(module.graph.nodes))
        for node in list(module.graph.nodes):
            if node.op != "get_attr":
                continue
            tensor = getattr(module, node.target)
            tensors.append(tensor)
            with module.graph.inserting_before(first):
                placeholder = module.graph.placeholder(f"constant_{len(tensors)}")
            placeholder.meta["val"] = tensor
            node.replace_all_uses_with(placeholder)
            module.graph.erase_node(node)
        return tensors

    def _constant(self, tensor: Any) -> Constant:
        held = getattr(tensor, "constant", tensor)
        if held is None:
            raise NotImplementedError("it holds a tensor whose value is not known")
        flat = held.detach().contiguous().reshape(-1).view(self._torch.uint8)
        return Constant(spec_of(held, {}, "constant"), bytes(flat.numpy().tobytes()))
