"""PyTorch module -> IR, by ``torch.export``: without a copy of any weight, on any device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch_ir import decompose, exporting
from torch_ir import example as examples
from torch_ir.dimensions import Size, declared_symbols
from torch_ir.equalities import without_dependent_symbols
from torch_ir.errors import IRError
from torch_ir.expr import Dim, within
from torch_ir.functionalize import Functional, NotSimpleError, base_name, functionalize, live_nodes
from torch_ir.fx_reader import ReadGraph, read_graph, spec_of
from torch_ir.guards import conditions, guards_of, with_least_sizes
from torch_ir.ir import IR, Constant, Node, Output, State, TensorSpec, with_sizes
from torch_ir.source_lines import source_line
from torch_ir.specialised import without_needless_guards


def extract_ir(
    model: Any,
    example: Any,
    *,
    model_name: str | None = None,
    dynamic_shapes: Any = None,
    output_names: Sequence[str] | None = None,
) -> IR:
    """The graph of one call of ``model`` (a ``torch.nn.Module``).

    ``example`` is a tensor, a tuple of positional inputs, or a mapping of keyword inputs; only shapes and
    dtypes matter. It and the model may be on any device, ``meta`` included. ``dynamic_shapes`` is what
    ``torch.export.export`` takes, or a mapping input name -> {dimension: (symbol name, lower, upper)}, as in
    ``{"x": {0: ("batch", 1, 8)}}``; bounds are inclusive. ``output_names`` name the tensors that the module
    returns, in order; without them, the keys of a returned mapping or dataclass, else "output", or
    "output_0"... Tensors in objects that PyTorch does not look into, such as a cache of ``transformers``, are
    named by the attributes that hold them.

    What it returns beside tensors is left out, where no input decides it: None, text, numbers.

    Buffers that the call changes become states; a non-persistent one on ``meta`` starts as zeros.

    What the module asks of several dimensions together, or of one beside its bounds, becomes a guard: two
    that must be equal are one symbol, of which a run checks the others.

    Raises ``IRError`` where the module cannot be exported or compiled: training mode, changed inputs, sizes
    that depend on values, a dynamic dimension with narrower bounds than declared, or a missing upper bound.
    """
    import torch

    name = model_name or type(model).__name__

    def extracted(fixed: Mapping[str, int], alike: bool = False) -> IR:
        """The graph, with symbols fixed to sizes."""
        prepared = examples.prepare(torch, model, example, dynamic_shapes, fixed=fixed, alike=alike)
        with exporting.on_cpu(torch, model) as to_cpu:
            args, kwargs = torch.utils._pytree.tree_map_only(
                torch.Tensor, _distinct(to_cpu, model), (prepared.args, prepared.kwargs)
            )
            try:
                program, least = exporting.export(torch, name, model, args, kwargs, prepared.dynamic_shapes)
            except IRError:
                if alike or len({dim for dims in prepared.dims for dim in dims.values()}) < 2:
                    raise
            else:
                found = _Extraction(torch, program, name, prepared.dims, _first_names(model))
                return with_least_sizes(found.run(output_names), least)
        return extracted(fixed, alike=True)  # dimensions that must be equal

    ir = without_dependent_symbols(without_needless_guards(extracted({}), extracted))
    ir.verify("extraction")
    return ir


def _distinct(to_cpu: Callable[[Any], Any], model: Any) -> Callable[[Any], Any]:
    """``to_cpu``, giving every input a tensor of its own: ``torch.export`` takes one tensor in two places, or
    a weight given as an input, for one value."""
    seen = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}

    def own(tensor: Any) -> Any:
        moved = to_cpu(tensor)
        if id(moved) in seen:
            moved = moved.detach().clone()
        seen.add(id(moved))
        return moved

    return own


def _first_names(model: Any) -> dict[str, str]:
    """Every name of a parameter or buffer -> the first that the same tensor has: a checkpoint may leave out
    the others of tied weights."""
    first: dict[int, str] = {}
    named = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    return {name: first.setdefault(id(tensor), name) for name, tensor in named}


class _Extraction:
    """One ``ExportedProgram`` on its way to an IR."""

    def __init__(
        self,
        torch: Any,
        program: Any,
        name: str,
        dims: Sequence[Mapping[int, Any]],
        first_names: Mapping[str, str],
    ) -> None:
        self._torch = torch
        self._name = name
        self._dims = dims
        self._first_names = first_names
        self._locations = {
            node.name: found
            for module in program.graph_module.modules()
            if hasattr(module, "graph")
            for node in module.graph.nodes
            if (found := source_line(node.meta.get("stack_trace")))
        }
        self._use(program)

    def _use(self, program: Any) -> None:
        self._program = program
        self._inputs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
        self._tensors = {
            node.name: node.meta["val"]
            for node in program.graph.nodes
            if node.op == "placeholder" and hasattr(node.meta.get("val"), "untyped_storage")
        }
        targets = {node.name: node.target for node in program.graph.nodes if node.op == "placeholder"}
        taken = set(self._tensors)
        self._names: dict[str, str] = {}
        for name in self._tensors:
            public = (
                targets[name] if self._kind(name) == "USER_INPUT" and targets[name] not in taken else name
            )
            self._names[name] = public
            taken.add(public)

    def _kind(self, placeholder: str) -> str:
        return str(self._inputs[placeholder].kind.name)

    def run(self, output_names: Sequence[str] | None) -> IR:
        self._conditions = list(conditions(self._program))
        symbols, bounds = self._symbols()
        self._guards = guards_of(self._name, self._conditions, symbols, bounds)
        try:
            graph = self._graph(symbols)
            _check_inference(self._name, graph.nodes)
            result = functionalize(
                graph.nodes,
                graph.specs,
                list(self._names.values()),
                [value for value in graph.outputs if value is not None],
            )
            updates = {
                name: result.now(public)
                for name, public in self._names.items()
                if result.now(public) != public
            }
        except NotSimpleError:
            try:
                self._use(decompose.make_functional(self._program))
            except Exception as error:  # whatever goes wrong inside PyTorch's functions
                raise IRError(f"{self._name}: PyTorch cannot make this module functional: {error}") from error
            try:
                graph = self._graph(symbols)
                _check_inference(self._name, graph.nodes)
                nodes = decompose.restore_composites(graph.nodes, graph.outputs)
                result = functionalize(nodes, graph.specs, list(self._names.values()), [])
            except NotSimpleError as error:
                raise IRError(f"{self._name}: {error}; write it without the in-place operation") from None
            updates = self._signature_updates(graph, result)
        outputs = self._outputs(graph, result, output_names)
        self._check_updates(updates)
        return self._assemble(result.nodes, outputs, updates, symbols, bounds)

    def _graph(self, symbols: Mapping[str, Dim]) -> ReadGraph:
        def locate(node: Any) -> str:
            trace = node.meta.get("stack_trace")
            return source_line(trace) or self._locations.get(node.name, "") or source_line(trace, own=False)

        return read_graph(self._program, self._names, symbols, locate)

    def _symbols(self) -> tuple[dict[str, Dim], dict[str, tuple[int, int]]]:
        """PyTorch's symbols as ours, and the bounds of ours."""
        users = [name for name in self._tensors if self._kind(name) == "USER_INPUT"]
        sizes = [
            Size(size if isinstance(size, int) else size.node.expr, self._names[name], axis, dims.get(axis))
            for index, name in enumerate(users)
            for dims in [self._dims[index] if index < len(self._dims) else {}]
            for axis, size in enumerate(self._tensors[name].shape)
        ]
        return declared_symbols(self._name, self._program.range_constraints, sizes, self._conditions)

    def _signature_updates(self, graph: ReadGraph, result: Functional) -> dict[str, str]:
        updates = {}
        by_target = {spec.target: name for name, spec in self._inputs.items() if spec.target is not None}
        for spec, value in zip(self._program.graph_signature.output_specs, graph.outputs, strict=True):
            if spec.kind.name == "USER_OUTPUT":
                continue
            placeholder = spec.target if spec.target in self._inputs else by_target.get(spec.target)
            if placeholder is None or value is None:
                raise IRError(
                    f"{self._name}: the module changes {spec.target}, which is no buffer; "
                    "only registered buffers may change"
                )
            updates[placeholder] = result.now(value)
        return updates

    def _check_updates(self, updates: Mapping[str, str]) -> None:
        for name in updates:
            kind = self._kind(name)
            if kind != "BUFFER":
                what = {"USER_INPUT": "its input", "PARAMETER": "its parameter"}.get(kind, "the constant")
                raise IRError(
                    f"{self._name}: the module changes {what} {self._inputs[name].target or name} in "
                    "place; work on a copy (x = x.clone()), or register it as a buffer if it is state"
                )

    def _outputs(
        self, graph: ReadGraph, result: Functional, given: Sequence[str] | None
    ) -> tuple[Output, ...]:
        specs = self._program.graph_signature.output_specs
        values = [
            value for spec, value in zip(specs, graph.outputs, strict=True) if spec.kind.name == "USER_OUTPUT"
        ]
        kept = [index for index, value in enumerate(values) if value is not None]
        if not kept:
            raise IRError(f"{self._name}: the module returns no tensor; return at least one")
        if given is None:
            names = _output_names(self._torch, self._program.call_spec.out_spec)
            chosen = [names[index] for index in kept]
        elif len(given) != len(kept):
            raise IRError(
                f"{self._name}: output_names has {len(given)} names ({', '.join(given)}) and the module "
                f"returns {len(kept)} tensors; give one name per tensor"
            )
        else:
            chosen = list(given)
        return tuple(
            Output(name, result.now(str(values[index]))) for name, index in zip(chosen, kept, strict=True)
        )

    def _assemble(
        self,
        nodes: Sequence[Node],
        outputs: tuple[Output, ...],
        updates: Mapping[str, str],
        symbols: Mapping[str, Dim],
        bounds: Mapping[str, tuple[int, int]],
    ) -> IR:
        live = live_nodes(nodes, {output.value for output in outputs} | set(updates.values()))
        read = {value for node in live for value in node.inputs} | {output.value for output in outputs}
        read |= set(updates.values())
        inputs: dict[str, TensorSpec] = {}
        weights: dict[str, TensorSpec] = {}
        mapping: dict[str, str] = {}
        constants: dict[str, Constant] = {}
        states: dict[str, State] = {}
        for name, tensor in self._tensors.items():
            public, info = self._names[name], self._inputs[name]
            spec = spec_of(tensor, symbols, public)
            kind, key = self._kind(name), str(info.target)
            persistent = kind == "PARAMETER" or bool(info.persistent)
            if kind == "USER_INPUT":
                inputs[public] = spec
                continue
            if persistent:
                weights[key] = spec
            if name in updates:
                data = None if persistent else self._data(key, or_zeros=True)
                states[public] = State(
                    key, spec, updates[name], persistent, None if data is None or not any(data) else data
                )
            elif persistent:
                mapping[public] = first = self._first_names.get(key, key)
                weights.setdefault(first, spec)
            elif public in read:
                constants[public] = Constant(spec, self._data(key) or b"", key)
        found = IR(
            self._name,
            inputs,
            outputs,
            live,
            weights,
            mapping,
            constants,
            states,
            dict(bounds),
            str(self._torch.__version__),
            guards=self._guards,
        )
        return with_sizes(found, partial(within, bounds=bounds))

    def _data(self, key: str, or_zeros: bool = False) -> bytes | None:
        """The bytes of a constant or of a buffer that is in no state_dict; None where it has none."""
        tensor = self._program.constants.get(key)
        if tensor is None or type(tensor).__name__ == "FakeTensor" or tensor.device.type == "meta":
            if or_zeros:
                return None
            raise IRError(
                f"{self._name}: {key} is part of the graph (a constant, or a buffer with "
                "persistent=False), but lies on the meta device and so has no value; build it on the CPU"
            )
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        return bytes(flat.view(self._torch.uint8).numpy().tobytes()) if flat.numel() else b""


def _check_inference(name: str, nodes: Sequence[Node]) -> None:
    """Raises ``IRError`` for operations that only training has."""
    for node in nodes:
        base = base_name(node.op)
        norm = base in ("batch_norm", "instance_norm", "_native_batch_norm_legit", "native_batch_norm")
        statistics = norm and len(node.inputs) > 3 and node.inputs[3] is not None
        if (statistics and (node.attrs.get("training") or node.attrs.get("use_input_stats"))) or (
            base.endswith("dropout") and node.attrs.get("train")
        ):
            raise IRError(
                f"{name}: {node.name} ({node.op}) at {node.loc or 'an unknown line'} is in training mode; "
                "call model.eval() before extraction"
            )


def _output_names(torch: Any, out_spec: Any) -> list[str]:
    """A name for every leaf of what the module returns."""
    pytree = torch.utils._pytree
    leaves, _ = pytree.tree_flatten_with_path(
        pytree.tree_unflatten(list(range(out_spec.num_leaves)), out_spec)
    )
    names: list[str] = []
    for path, _ in leaves:
        parts = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path]
        name = "_".join(parts)
        names.append(f"output_{name}" if parts and parts[0].isdigit() else name or "output")
    return names
