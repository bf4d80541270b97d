"""Lowered graph -> kernel calls over strided views of buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from npu_compiler import pointwise, views
from npu_compiler.ctext import symbol_name
from npu_compiler.emitted import BufferInfo, Emitted, Options
from npu_compiler.errors import Refusal, UnsupportedOpError, refusal
from npu_compiler.half_storage import half_values
from npu_compiler.in_place import in_place
from npu_compiler.lowering import as_int
from npu_compiler.ops import Cost, op_def
from npu_compiler.select import BufferUse, KernelCall, Param, ScalarUse, kernel_name
from npu_compiler.spaces import Choice, Question, Space
from npu_compiler.target import Target
from npu_compiler.tuned import Answer, Tuning
from npu_compiler.views import View, place
from npu_compiler.weights import Pack, Transforms, as_stored, constant_exprs
from npu_runtime.program import HOST_CHECKED, WeightExpr
from torch_ir.expr import Dim, bounds_of, gcd_of, product, symbol, symbols_of
from torch_ir.ir import IR, Attr, Node, Output, TensorSpec

_RULES = Tuning()
#: The one buffer of kind "fault".
FAULTS = "faults"


class Emitter:
    """What op records emit kernels through. One per compilation."""

    def __init__(self, ir: IR, target: Target, options: Options, tuning: Tuning = _RULES) -> None:
        self.ir, self.target, self.options, self.tuning = ir, target, options, tuning
        self.calls: list[KernelCall] = []
        self.buffers: dict[str, BufferInfo] = {}
        self.decisions: list[str] = []
        self.answers: dict[str, Answer] = {}
        self.input_bounds: dict[str, tuple[int, int]] = {}
        self._specs = ir.values()
        self._views: dict[str, View] = {}
        self._constants = constant_exprs(ir)
        self._producers = {output: node for node in ir.nodes for output in node.outputs}
        self._transforms = Transforms()
        self._in_place = in_place(ir, self._constants)
        self._halves = half_values(ir, target, self._constants)
        self._direct = self._direct_outputs()
        self._refusals: dict[str, Refusal] = {}
        self._node = ""

    # -- values
    # -----------------------------------------------------------------------------------------------------

    def spec(self, value: str) -> TensorSpec:
        return self._specs[value]

    def view(self, value: str | None) -> View:
        """Where a value lies in memory."""
        assert value is not None
        if value not in self._views:
            self._views[value] = self._find(value)
        return self._views[value]

    def is_constant(self, value: str | None) -> bool:
        """Whether the value is computed when weights are loaded."""
        return value in self._constants

    def constant(self, value: str) -> tuple[WeightExpr, str]:
        """How a constant value is computed, and the dtype it takes on the device: what was only widened to
        float32 for arithmetic can lie there in 16 bits."""
        expr = self._constants[value]
        return as_stored(expr, self.ir) or (expr, self._specs[value].dtype)

    def weight(
        self,
        value: str,
        shape: tuple[int, ...],
        pack: Pack = lambda expr: expr,
        *,
        stored: bool = False,
        dtype: str | None = None,
    ) -> View:
        """A constant value in a form of its own: ``pack`` rearranges its expression into ``shape``.

        ``stored``: in the dtype that ``constant`` tells; ``dtype``: in this one."""
        expr, own = (
            self.constant(value) if stored or dtype else (self._constants[value], self._specs[value].dtype)
        )
        kept = dtype or own
        name = self._transforms.add(pack(expr), shape, kept)
        spec = TensorSpec(shape, kept)
        self.buffers.setdefault(name, BufferInfo("weight", name, spec.nbytes))
        return place(name, spec)

    def output(self, node: Node, index: int = 0, order: tuple[int, ...] = ()) -> View:
        """Memory for an output of ``node`` in that output's layout; for one that is no output of the program,
        ``order`` may say which dimension comes first in memory, and so on."""
        value, spec = node.outputs[index], node.outs[index]
        spec = replace(spec, dtype=self._halves.get(value, spec.dtype))
        over = op_def(node.op).over
        if over is not None and value in self._in_place and self.target.group == 1:
            old = self.view(node.inputs[over])
            if old == place(old.buffer, spec):
                self._views[value] = old
                return old
        name, info = value, BufferInfo("scratch", "", views.nbytes(spec))
        if value in self._direct:
            name = f"output:{self._direct[value]}"
            info = BufferInfo("output", self._direct[value], spec.nbytes)
        self.buffers[name] = info
        view = place(name, spec)
        if order and info.kind == "scratch":
            moved = place(name, TensorSpec(tuple(spec.shape[dim] for dim in order), spec.dtype))
            view = views.permute(moved, tuple(order.index(dim) for dim in range(len(order))))
        self._views[value] = view
        return view

    def updated(self, node: Node, index: int = 0, *, dense: bool = False) -> View:
        """Memory for the output of a node that changes parts of the input at the same place: a copy of it, or
        itself.

        ``dense``: row-major, without gaps, from the buffer's start."""
        old = self.view(node.inputs[index])
        fits = old.is_dense() and old.offset == 0 if dense else not old.may_overlap()
        if node.outputs[index] in self._in_place and fits:
            self._views[node.outputs[index]] = old
            return old
        out = self.output(node, index)
        self.copy(old, out, node)
        return out

    def scratch(self, name: str, spec: TensorSpec) -> View:
        """Memory for a step between two kernels of one op."""
        self.buffers[name] = BufferInfo("scratch", "", views.nbytes(spec))
        return place(name, spec)

    def bounds(self, dim: Dim) -> tuple[int, int]:
        """The smallest and largest value of a size."""
        return bounds_of(dim, self.ir.symbols)

    def divides(self, number: int, dim: Dim) -> bool:
        """Whether a size is a multiple of ``number`` whatever the symbols are."""
        return gcd_of(dim) % number == 0

    def choose(self, space: Space, question: Question) -> Choice:
        """A value for each knob of ``space``: measured where this device, or its family, has an entry for
        ``question``, else by the space's rule. The choice is recorded."""
        answer = self.tuning.answer(space, question)
        before = self.answers.get(answer.key, answer).nodes
        self.answers[answer.key] = replace(answer, nodes=tuple(dict.fromkeys((*before, self._node))))
        return answer.choice

    def call(
        self,
        op: str,
        variant: str,
        template: str,
        params: Mapping[str, Param],
        *,
        node: Node,
        args: Sequence[BufferUse | ScalarUse],
        global_size: Sequence[Dim],
        local_size: Sequence[int] | None = None,
        shown: Mapping[str, int | str] | None = None,
        dtype: str = "f32",
        cost: Cost | None = None,
        indexes: bool | None = None,
    ) -> None:
        """Enqueues a kernel. ``shown`` are the parameters that its name spells out.

        ``indexes``: the kernel is given indices, and reports those out of range if it is true and the program
        is to check them: its template gets the parameter ``checked`` and, where that is true, two more
        arguments at the end (``lib/faults.cl.j2``).
        """
        if indexes is not None:
            checked = indexes and self.options.check_indices
            params = {**params, "checked": checked}
            args = [*args, *(self._fault_args() if checked else ())]
        entry = kernel_name(op, dtype, variant, shown or {}, {"template": template, **params})
        self.calls.append(
            KernelCall(
                entry,
                template,
                params,
                tuple(args),
                tuple(global_size),
                tuple(local_size) if local_size else None,
                cost or Cost(),
                node.origin or (node.name,),
            )
        )

    def bound_input(self, index: View, rows: Dim, *, wrap: bool) -> bool:
        """Where ``index`` is a whole program input, perhaps repeated, has its values checked before a run:
        they index ``rows`` rows (from the end as well with ``wrap``). Returns whether a kernel that is given
        them must check them all the same."""
        info = self.buffers[index.buffer]
        strided = zip(index.shape, index.strides, strict=True)
        distinct = product(size for size, stride in strided if stride != 0)
        if info.kind != "input" or distinct != self.ir.inputs[info.ref].numel:
            return True
        most = self.bounds(rows)[1]
        low, high = self.input_bounds.get(info.ref, (-most, most - 1))
        self.input_bounds[info.ref] = (max(low, -most if wrap else 0), min(high, most - 1))
        return not isinstance(rows, int) or self.bounds(distinct)[1] > HOST_CHECKED

    def _fault_args(self) -> tuple[BufferUse, ScalarUse]:
        """The program's fault buffer, and a number of its own in it."""
        known = self.buffers.get(FAULTS)
        number = 0 if known is None else as_int(known.nbytes) // 4
        self.buffers[FAULTS] = BufferInfo("fault", "", 4 * (number + 1))
        return BufferUse(FAULTS, "rw"), ScalarUse(number)

    def symbol_args(self, dims: Sequence[Dim]) -> tuple[list[str], list[ScalarUse]]:
        """The symbols that these sizes mention, as names for a kernel's parameters and as its arguments."""
        names = sorted(frozenset().union(*map(symbols_of, dims))) if dims else []
        return [symbol_name(name) for name in names], [ScalarUse(symbol(name)) for name in names]

    def copy(self, source: View, target: View, node: Node) -> None:
        """Copies elements (converting dtype) from one view to another of the same shape."""
        pointwise.emit_copy(self, source, target, node)

    def fill(self, target: View, value: Attr, node: Node) -> None:
        """Sets every element of a view."""
        pointwise.emit_fill(self, target, value, node)

    def dense(self, view: View, node: Node, tag: str) -> View:
        """The view itself if it is dense and row-major, else a copy that is."""
        if view.is_dense():
            return view
        made = self.scratch(f"{node.name}:{tag}", view.spec)
        self.copy(view, made, node)
        return made

    # -- the whole graph
    # --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Emits every node. Raises ``UnsupportedOpError`` with all nodes that cannot be emitted."""
        for node in self.ir.nodes:
            if not all(output in self._constants for output in node.outputs):
                self._attempt(node, self._emit, node)
        self._finish()
        if self._refusals:
            raise UnsupportedOpError(self.ir.name, tuple(self._refusals.values()))

    def emit_where(self, share: Dim, nodes: Sequence[Node]) -> None:
        """Emits ``nodes``, which the graph does not have, as kernels that run where ``share``, 0 or 1, is 1.
        They stand in for others: rules choose about them, and no measurement is asked for."""
        made = {output for node in nodes for output in node.outputs}
        for value in [value for node in nodes for value in node.inputs if value is not None]:
            if value not in made and value not in self._constants:
                self.view(value)  # what copies it runs in any case: others read the copy as well
        kept, first = (self._node, self.tuning, self.answers), len(self.calls)
        self.tuning, self.answers = _RULES, {}
        self._specs = {**self._specs, **{node.outputs[0]: node.out for node in nodes}}
        for node in nodes:
            self._emit(node)
        self.calls[first:] = [
            replace(
                call,
                global_size=(call.global_size[0] * share, *call.global_size[1:]),
                cost=call.cost.times(share),
            )
            for call in self.calls[first:]
        ]
        self._node, self.tuning, self.answers = kept

    def _emit(self, node: Node) -> None:
        self._node = node.name
        op = op_def(node.op)
        if op.emit is not None:
            op.emit(self, node)
        elif op.alias is None:
            pointwise.emit(self, node)

    def _attempt(self, node: Node, work: Callable[..., None], *args: object) -> None:
        """Does ``work(*args)`` for ``node``. A refusal is kept, and what reads the node goes on as if it had
        memory."""
        try:
            work(*args)
        except Exception as error:
            self._refusals.setdefault(node.name, refusal(node, error))
            for index, output in enumerate(node.outputs):
                if output not in self._views:
                    self.output(node, index)

    def _find(self, value: str) -> View:
        spec = self._specs[value]
        if value in self.ir.inputs:
            self.buffers[f"input:{value}"] = BufferInfo("input", value, spec.nbytes)
            return place(f"input:{value}", spec)
        if value in self.ir.states:
            return self._state(value)
        node = self._producers.get(value)
        if node is not None:
            alias = op_def(node.op).alias
            source = node.inputs[0] if node.inputs else None
            if alias is not None and source is not None and not self._is_part(value, source):
                view = alias(self.view(source), node)
                if view is not None:
                    return view
                if value not in self._constants:
                    made = self.output(node)
                    spec = TensorSpec(self.view(source).shape, made.dtype)
                    self.copy(self.view(source), place(made.buffer, spec), node)
                    return made
        if value in self._constants:
            return self.weight(value, tuple(int(str(size)) for size in spec.shape))
        raise AssertionError(f"{value} was not emitted before its use")

    def _is_part(self, value: str, source: str) -> bool:
        """Whether ``value`` is of a weight that no buffer holds as a whole."""
        most = self.target.max_alloc_bytes
        return value in self._constants and self.bounds(self._specs[source].nbytes)[1] > most

    def _state(self, placeholder: str) -> View:
        state = self.ir.states[placeholder]
        self.buffers[f"state:{state.key}"] = BufferInfo("state", state.key, state.spec.nbytes)
        return place(f"state:{state.key}", state.spec)

    def _direct_outputs(self) -> dict[str, str]:
        """value -> program output, for values whose producer can write the output's memory itself."""
        found: dict[str, str] = {}
        for output in self.ir.outputs:
            node = self._producers.get(output.value)
            if node is None or output.value in found or output.value in self._constants:
                continue
            spec = self._specs[output.value]
            if op_def(node.op).alias is None and spec.layout == "row":
                found[output.value] = output.name
        return found

    def _finish(self) -> None:
        """Copies to outputs that no kernel wrote itself; then states take their new values, all reads being
        done."""
        for output in self.ir.outputs:
            if self._direct.get(output.value) != output.name:
                self._attempt(self._origin(output.value), self._copy_output, output)
        pending: list[tuple[View, View, Node]] = []
        for placeholder, state in self.ir.states.items():
            self._state(placeholder)
            if state.update is not None and state.update != placeholder:
                self._attempt(self._origin(state.update), self._hold, placeholder, state.update, pending)
        for source, target, node in pending:
            self._attempt(node, self.copy, source, target, node)

    def _copy_output(self, output: Output) -> None:
        spec = replace(self._specs[output.value], layout="row")
        self.buffers[f"output:{output.name}"] = BufferInfo("output", output.name, spec.nbytes)
        source = self.view(output.value)
        self.copy(source, place(f"output:{output.name}", spec), self._origin(output.value))

    def _hold(self, placeholder: str, value: str, pending: list[tuple[View, View, Node]]) -> None:
        """Adds the copy that gives a state its new value; its source is no state's memory."""
        source, target, node = self.view(value), self._state(placeholder), self._origin(value)
        if source == target:
            return
        if self.buffers[source.buffer].kind == "state":
            held = self.scratch(f"{placeholder}:next", source.spec)
            self.copy(source, held, node)
            source = held
        pending.append((source, target, node))

    def _origin(self, value: str) -> Node:
        return self._producers.get(value) or Node(value, "copy", (), (), (), origin=("outputs",))

    def result(self) -> Emitted:
        used = {use.buffer for call in self.calls for use in call.args if isinstance(use, BufferUse)}
        kept = {
            name: info
            for name, info in self.buffers.items()
            if name in used or info.kind in ("output", "state")
        }
        made = {name: transform for name, transform in self._transforms.made.items() if name in kept}
        return Emitted(
            tuple(self.calls),
            kept,
            made,
            tuple(self.decisions),
            tuple(self.answers.values()),
            dict(self.input_bounds),
        )
