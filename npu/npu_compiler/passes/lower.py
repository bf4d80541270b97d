"""ATen operations -> ops of the registry, with no-ops dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from npu_compiler.argument_shapes import shapes_by_arguments
from npu_compiler.dtypes import HALF, SHORT, attr_dtype, is_float
from npu_compiler.errors import Refusal, Unsupported, UnsupportedOpError, refusal
from npu_compiler.half_operands import rounded_operands
from npu_compiler.lowering import Builder
from npu_compiler.ops import Lowering, load_all, op_def
from npu_compiler.ops.creation import full
from npu_compiler.reasons import unknown, unknown_dtype
from npu_compiler.schemas import problem
from npu_compiler.target import Target
from torch_ir.expr import Bounds, Dim, evaluate
from torch_ir.functionalize import base_name, is_in_place, words
from torch_ir.ir import IR, Node, Output, State, TensorSpec


def lower(ir: IR, target: Target) -> IR:
    """Rewrites every node by the lowering that claims its overload.

    Raises ``UnsupportedOpError`` with all nodes that nothing claims or that a lowering refuses.
    """
    lowered, refusals = lower_known(ir)
    if refusals:
        raise UnsupportedOpError(ir.name, refusals)
    return lowered


def lower_known(ir: IR) -> tuple[IR, tuple[Refusal, ...]]:
    """``lower`` for the nodes that can be, and why the others cannot.

    What a refused node makes is an input of the graph that comes back; what nodes make for it is an output.
    """
    ops, lowerings = load_all()
    specs = ir.values()
    taken = set(specs) | {node.name for node in ir.nodes}
    aliases: dict[str, str] = {}
    nodes: list[Node] = []
    refusals: list[Refusal] = []
    lost: dict[str, TensorSpec] = {}
    wide: dict[str, str] = {}
    wanted: dict[str, None] = {}
    for extracted in ir.nodes:
        node = replace(
            extracted,
            inputs=tuple(aliases.get(v, v) if v is not None else None for v in extracted.inputs),
            origin=extracted.origin or (extracted.name,),
        )
        try:
            if node.op in ops:
                operands = [None if value is None else specs[value] for value in node.inputs]
                _check(node, ops[node.op].infer(operands, node.attrs), ir.symbols)
                nodes.append(node)
                continue
            builder, results = _lowered(node, specs, taken, lowerings, wide, ir.symbols)
            _check(node, [builder.spec(result) for result in results], ir.symbols)
        except Exception as error:
            refusals.append(refusal(node, error))
            lost.update(zip(node.outputs, node.outs, strict=True))
            wanted.update((value, None) for value in node.inputs if value is not None)
            continue
        made, renamed = builder.finish(results)
        nodes += made
        specs.update((output, spec) for n in made for output, spec in zip(n.outputs, n.outs, strict=True))
        aliases.update({original: aliases.get(value, value) for original, value in renamed.items()})
    outputs = [replace(output, value=aliases.get(output.value, output.value)) for output in ir.outputs]
    if lost:
        produced = {output for node in nodes for output in node.outputs}
        outputs = [output for output in outputs if output.value not in lost]
        outputs += [Output(f"{value}:read by a refused node", value) for value in wanted if value in produced]
    states = {name: _renamed(state, aliases, lost) for name, state in ir.states.items()}
    lowered = replace(
        ir, inputs={**ir.inputs, **lost}, nodes=tuple(nodes), outputs=tuple(outputs), states=states
    )
    return lowered, tuple(refusals)


def _check(node: Node, made: Sequence[TensorSpec], symbols: Bounds) -> None:
    """Refuses a node whose outputs are not what the graph says: one of the two is mistaken."""
    for output, says, gives in zip(node.outputs, node.outs, made, strict=True):
        if says.dtype != gives.dtype or not _equal(says.shape, gives.shape, symbols):
            texts = (f"{spec.dtype}[{', '.join(map(str, spec.shape))}]" for spec in (says, gives))
            raise Unsupported(
                "the graph says that {} is {}, the operation makes {}".format(output, *texts),
                "extract the graph again",
            )


def _equal(left: Sequence[Dim], right: Sequence[Dim], symbols: Bounds) -> bool:
    """Whether shapes are equal: as they are written, or at every sampled value of the symbols (one size can
    be written in several ways)."""
    if left == right:
        return True
    if len(left) != len(right) or not symbols:
        return False
    steps = (0, 1, 2, 3, 5)
    samples = [{name: min(low + step, high) for name, (low, high) in symbols.items()} for step in steps]
    samples.append({name: high for name, (_, high) in symbols.items()})
    pairs = list(zip(left, right, strict=True))
    return all(evaluate(a, values) == evaluate(b, values) for values in samples for a, b in pairs)


def _lowered(
    node: Node,
    specs: Mapping[str, TensorSpec],
    taken: set[str],
    lowerings: Mapping[str, Lowering],
    wide: dict[str, str],
    symbols: Bounds,
) -> tuple[Builder, list[str]]:
    """What the node's lowering builds, and the values that stand for its outputs.

    Arithmetic on floating point of 16 bits happens in float32, also within what one operation becomes;
    products and attention keep its dtype as their attribute ``half``, since tensor cores take operands of 16
    bits.
    ``wide`` knows the float32 value of every result that was narrowed for no other reason; what computes on
    goes on from it, so that nothing is rounded that is not stored.
    """
    lowering = _lowering(node, specs, lowerings)
    _check_arguments(node, specs, symbols)
    if not node.outs or any(0 not in spec.shape for spec in node.outs):
        return _computed(node, specs, taken, lowering, wide, symbols)
    try:  # there is nothing to compute, but the shapes are to be right
        tried, results = _computed(node, specs, set(taken), lowering, dict(wide), symbols)
    except Exception:
        if all(0 not in specs[value].shape for value in node.inputs if value is not None):
            raise
    else:
        _check(node, [tried.spec(result) for result in results], symbols)
    builder = Builder(node, specs, taken, symbols)
    return builder, [full(builder, spec.shape, 0, spec.dtype) for spec in node.outs]


def _computed(
    node: Node,
    specs: Mapping[str, TensorSpec],
    taken: set[str],
    lowering: Lowering,
    wide: dict[str, str],
    symbols: Bounds,
) -> tuple[Builder, list[str]]:
    """``_lowered`` for results that have elements."""
    halves = [value for value in node.inputs if value is not None and specs[value].dtype in HALF]
    narrow = any(spec.dtype in HALF for spec in node.outs)
    if not halves and not narrow:
        builder = Builder(node, specs, taken, symbols)
        return builder, _listed(lowering(builder, node))
    as_stored = _moved(node, specs, taken, lowering, symbols)
    if as_stored is not None:
        made_ops = {made.op for made in as_stored[0].nodes}
        converted = narrow and "cast" in made_ops
        if converted or "reinterpret" in made_ops or not wide.keys() >= set(halves):
            taken.update(output for made in as_stored[0].nodes for output in made.outputs)
            return as_stored
    builder = Builder(node, specs, taken, symbols)
    dtypes = {specs[v].dtype for v in node.inputs if v is not None and is_float(specs[v].dtype)}
    node = rounded_operands(builder, node)
    inputs = tuple(
        wide.get(v) or builder.emit("cast", v, dtype="torch.float32") if v in halves else v
        for v in node.inputs
    )
    attrs = {name: "torch.float32" if attr_dtype(v) in HALF else v for name, v in node.attrs.items()}
    outs = tuple(replace(out, dtype="float32") if out.dtype in HALF else out for out in node.outs)
    results = _listed(lowering(builder, replace(node, inputs=inputs, outs=outs, attrs=attrs)))
    if narrow and len(dtypes) == 1:
        builder.nodes = [
            replace(made, attrs={**made.attrs, "half": min(dtypes)}) if op_def(made.op).half else made
            for made in builder.nodes
        ]
    for index, (output, spec) in enumerate(zip(node.outputs, node.outs, strict=True)):
        if spec.dtype in HALF:
            wide[output] = results[index]
            results[index] = builder.emit("cast", results[index], dtype=f"torch.{spec.dtype}")
    return builder, results


def _moved(
    node: Node, specs: Mapping[str, TensorSpec], taken: set[str], lowering: Lowering, symbols: Bounds
) -> tuple[Builder, list[str]] | None:
    """The lowering of a node that moves or converts elements and computes nothing; None for others."""
    builder = Builder(node, specs, set(taken), symbols)
    try:
        results = _listed(lowering(builder, node))
    except Unsupported:
        return None
    moves = all(op_def(made.op).alias is not None or op_def(made.op).stored for made in builder.nodes)
    return (builder, results) if moves else None


def _listed(results: str | Sequence[str]) -> list[str]:
    return [results] if isinstance(results, str) else list(results)


def _lowering(node: Node, specs: Mapping[str, TensorSpec], lowerings: Mapping[str, Lowering]) -> Lowering:
    if is_in_place(node.op):
        raise Unsupported(
            "it works in place, on memory that other values may share",
            "write it without the in-place operation, or extract the model with npubin's torch_ir.extract_ir",
        )
    if "." not in node.op:
        raise Unsupported(
            "a region of the model that the file names without what is in it",
            "extract the model with torch_ir.extract_ir of npubin, which takes in what the region computes",
        )
    dtypes = [specs[value].dtype for value in node.inputs if value is not None]
    for dtype in (*dtypes, *(spec.dtype for spec in node.outs)):
        if dtype not in SHORT:
            raise unknown_dtype(dtype)
    if node.op not in lowerings:
        raise unknown(node.op)
    mistake = problem(node)
    if mistake is not None:
        raise Unsupported(mistake, "extract the graph again, or correct this node")
    return lowerings[node.op]


#: Operations that take operands of floating point, or of whole numbers, and no mixture.
_PRODUCTS = words("""
    linear matmul mm bmm mv dot vdot addmm addmv addbmm baddbmm addr bilinear convolution _convolution
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d conv_tbc
    lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell
""")


def _check_arguments(node: Node, specs: Mapping[str, TensorSpec], symbols: Bounds) -> None:
    """Refuses a node whose arguments give other shapes than the graph says."""
    dtypes = sorted({specs[value].dtype for value in node.inputs if value is not None})
    if base_name(node.op) in _PRODUCTS and len({is_float(dtype) for dtype in dtypes}) > 1:
        raise Unsupported(f"operands of {' and '.join(dtypes)}", "convert them to one dtype before")
    shapes = shapes_by_arguments(node, [specs[value].shape for value in node.inputs if value is not None])
    if shapes is None:
        return
    if len(shapes) != len(node.outs):
        raise Unsupported(f"arguments that make {len(shapes)} results, and the graph has {len(node.outs)}")
    made = [replace(spec, shape=tuple(shape)) for spec, shape in zip(node.outs, shapes, strict=True)]
    _check(node, made, symbols)


def _renamed(state: State, aliases: Mapping[str, str], lost: Mapping[str, TensorSpec]) -> State:
    update = aliases.get(state.update, state.update) if state.update is not None else None
    return replace(state, update=None if update in lost else update)
