"""extract: the factory's module -> ``<program>.ir.json``, one per program, without weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from pipelines import factory, reads
from pipelines.config import ModelConfig
from pipelines.fingerprint import Observed
from pipelines.job import Job
from pipelines.schema import Program
from torch_ir.ir import IR
from torch_ir.sharing import share_states

if TYPE_CHECKING:
    import torch
    from torch import nn

#: Input name -> {dimension: (symbol, smallest size, largest size)}.
DynamicShapes: TypeAlias = dict[str, dict[int, tuple[str, int, int]]]


def run(job: Job) -> Observed:
    """Makes ``ir``. The module is built on the meta device, without memory for its weights, where that is
    possible."""
    graphs: dict[str, IR] = {}
    for number, (name, program) in enumerate(job.config.programs.items()):
        job.progress(f"exporting {name}", number, len(job.programs))
        model, device = build_weightless(job.config)
        with reads.traced():
            graphs[name] = extract_program(job.config.name, model, program, device)
    for name, graph in share_states(graphs).items():
        graph.save(job.ir(name))
    return factory.observed(job.root)


def build_weightless(config: ModelConfig) -> tuple[nn.Module, str]:
    """The model on the meta device; on the CPU where building needs values, or where tensors outside its
    state_dict (tables computed by its constructor) would lose theirs. Returns the device's name too."""
    import torch
    try:
        with torch.device("meta"):
            model = factory.build(config)
    except factory.FactoryError:
        raise
    except Exception:  # a factory that needs values fails in ways of its own; the CPU says if it is at fault
        model = None
    if model is None or _loses_values(model):
        return factory.build(config), "cpu"
    return model, "meta"


def extract_program(model_name: str, model: nn.Module, program: Program, device: str) -> IR:
    """The IR of one program of ``model``."""
    from torch_ir import extract_ir
    if program.method != "forward":
        if not hasattr(type(model), program.method):
            raise factory.FactoryError(f"{model_name}: {type(model).__name__} has no method {program.method}")
        model.__class__ = type(type(model).__name__, (type(model),),
                               {"forward": getattr(type(model), program.method)})
    example, dynamic = example_of(program, device)
    return extract_ir(model, example, model_name=model_name, dynamic_shapes=dynamic or None,
                      output_names=program.outputs or None)


def example_of(program: Program, device: str) -> tuple[dict[str, torch.Tensor], DynamicShapes]:
    """Zeros of the inputs' shapes by name (dynamic dimensions at their upper bounds), and the dynamic
    dimensions as ``extract_ir`` takes them."""
    import torch
    example: dict[str, torch.Tensor] = {}
    dynamic: DynamicShapes = {}
    for name, item in program.inputs.items():
        shape = [program.symbols[size].max if isinstance(size, str) else size for size in item.shape]
        example[name] = torch.zeros(shape, dtype=getattr(torch, item.dtype), device=device)
        named = {axis: size for axis, size in enumerate(item.shape) if isinstance(size, str)}
        dynamic[name] = {axis: (size, program.symbols[size].min, program.symbols[size].max)
                         for axis, size in named.items()}
    return example, dynamic if program.symbols else {}


def _loses_values(model: nn.Module) -> bool:
    """Whether a tensor outside the state_dict is on the meta device: its values would be gone."""
    import torch
    kept = set(model.state_dict())
    for prefix, module in model.named_modules():
        for name, tensor in module.named_buffers(recurse=False):
            if tensor.is_meta and (f"{prefix}.{name}" if prefix else name) not in kept:
                return True
        if any(isinstance(value, torch.Tensor) and value.is_meta for value in vars(module).values()):
            return True
    return False
