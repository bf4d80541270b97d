"""The program that draws a token from logits, beside a decoder's own: the same for every model with as many
tokens."""

from __future__ import annotations

from npu_compiler.compiler import CompileResult, compile_with_report
from npu_compiler.ops import op_def
from torch_ir.ir import IR, Node, Output, TensorSpec

#: The program's name.
NAME = "sample"


def token_sampler(vocabulary: int, *, target: str = "cpu", batch: int = 1) -> CompileResult:
    """A program from ``logits`` float32 [batch, 1, vocabulary], ``rules`` float32 [4] (``Sampling.rules``)
    and ``chance`` int64 [batch, 1] (0 to 2**53 - 1, ``Sampler.chance``) to ``token`` int64 [batch, 1], which
    is 0 where the largest logit is no finite number, and ``best`` float32 [batch, 1], that logit.

    Raises ``CompileError`` for a vocabulary that is empty or above 2**23, or an unknown target."""
    inputs = {
        "logits": TensorSpec((batch, 1, vocabulary), "float32"),
        "rules": TensorSpec((4,), "float32"),
        "chance": TensorSpec((batch, 1), "int64"),
    }
    names = ("token", "best")
    node = Node(NAME, "draw_token", tuple(inputs), names, op_def("draw_token").infer([*inputs.values()], {}))
    ir = IR(f"{NAME}-{vocabulary}", inputs, tuple(Output(name, name) for name in names), (node,))
    return compile_with_report(ir, target=target, program=NAME)
