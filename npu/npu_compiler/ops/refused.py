"""Operations that no program can have, each with the reason and what to do instead."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from npu_compiler.lowering import Builder, unsupported
from npu_compiler.ops import Lowering, lowers
from torch_ir.ir import Node

#: (reason, remedy) -> the overloads that it holds for.
REFUSED: Mapping[tuple[str, str], tuple[str, ...]] = MappingProxyType(
    {
        (
            "random numbers: a program gives the same results for the same inputs",
            "draw them outside of the model and pass them as an input",
        ): (
            *(f"rand.{kind}" for kind in ("default", "generator")),
            *(f"randn.{kind}" for kind in ("default", "generator")),
            *(f"randperm.{kind}" for kind in ("default", "generator")),
            *(f"randint.{kind}" for kind in ("default", "generator", "low", "low_generator")),
            *(f"{kind}_like.default" for kind in ("rand", "randn", "randint")),
            "randint_like.low_dtype",
            "bernoulli.default",
            "bernoulli.p",
            "bernoulli.Tensor",
            "multinomial.default",
            "normal.Tensor_Tensor",
            "normal.Tensor_float",
            "normal.float_Tensor",
            "normal.float_float",
            "normal_functional.default",
            "poisson.default",
            "binomial.default",
            "rrelu_with_noise.default",
            "uniform.default",
            "exponential.default",
        ),
        (
            "the result's size depends on values",
            "keep the shape with where, masked_fill or topk, or do this step outside of the model",
        ): (
            "nonzero.default",
            "masked_select.default",
            "bincount.default",
            "_unique2.default",
            "unique_dim.default",
            "unique_consecutive.default",
            "unique_dim_consecutive.default",
        ),
        (
            "a Python number that depends on a tensor's values",
            "keep it a tensor: write x.sum() and not x.sum().item()",
        ): ("_local_scalar_dense.default", "item.default", "equal.default", "allclose.default"),
        (
            "a matrix factorisation, which has no kernel",
            "do it when the weights are made, or run it in a fallback part",
        ): (
            *(f"linalg_{kind}.default" for kind in ("qr", "eig", "lstsq", "lu", "householder_product")),
            *(
                f"linalg_{kind}.default"
                for kind in ("cholesky_ex", "inv_ex", "lu_factor_ex", "ldl_factor_ex")
            ),
            *(f"_linalg_{kind}.default" for kind in ("svd", "eigh", "det", "slogdet", "solve_ex", "eigvals")),
            "cholesky.default",
            "geqrf.default",
        ),
    }
)


def _refusing(reason: str, remedy: str) -> Lowering:
    def refuse(b: Builder, node: Node) -> str:
        raise unsupported(reason, remedy)

    return refuse


for (_reason, _remedy), _names in REFUSED.items():
    lowers(*(f"aten.{name}" for name in _names))(_refusing(_reason, _remedy))
