"""What becomes of an operator's calls: extracted, compiled, run in one program and compared with eager
PyTorch."""

from __future__ import annotations

import copy
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import graphs
import numpy as np
import torch
from sampling import TIES, UNDEFINED, Call, calls, title

from npu_compiler.compiler import compile_ir
from npu_compiler.errors import UnsupportedOpError
from npu_runtime.device import Device
from torch_ir import IRError, extract_ir
from torch_ir.ir import IR

Array = np.ndarray[Any, Any]
_TORCH = {"float16": torch.float16, "bfloat16": torch.bfloat16}
#: Relative difference that float results may have, and its part of the largest result.
RTOL = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 1e-4, "float64": 1e-6}


@dataclass
class Verdict:
    """``outcome``: ok, refused, export (torch.export fails), wrong, crash, or skipped (eager fails too)."""

    call: str
    outcome: str
    detail: str = ""


@dataclass
class _Subject:
    call: Call
    verdict: Verdict
    expected: list[torch.Tensor] = field(default_factory=list)
    ir: IR | None = None


def judge(
    info: Any, dtype: torch.dtype, count: int, form: str, device: Device, together: bool
) -> Iterator[Verdict]:
    """The verdicts on ``count`` calls in one of ``FORMS``. ``together``: as one program, which is faster than
    one each."""
    subjects = [_prepared(call) for call in calls(info, dtype, count, form)]
    ready = [subject for subject in subjects if subject.ir is not None]
    for group in [ready] if together else [[subject] for subject in ready]:
        if group:
            name = title(info)
            undefined: Sequence[int] = range(9) if name in UNDEFINED else ()
            if name in TIES and dtype not in (torch.float32, torch.float64):
                undefined = (0,) if name == "argsort" else (1,)
            _run(group, device, undefined)
        for subject in group:
            if not together:
                yield subject.verdict
    for subject in subjects:
        if together or subject.ir is None:
            yield subject.verdict


def _prepared(call: Call) -> _Subject:
    subject = _Subject(call, Verdict(call.text, "ok"))
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inputs = [tensor.clone() for tensor in call.inputs]
            subject.expected = call.module(*inputs)
            call.module.copies = any(tensor._version for tensor in inputs)
    except Exception as error:
        subject.verdict = Verdict(call.text, "skipped", f"eager: {_short(error)}")
        return subject
    if not subject.expected:
        subject.verdict = Verdict(call.text, "skipped", "it returns no tensor")
        return subject
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ir = extract_ir(call.module, call.inputs, model_name="call")
    except IRError as error:
        kind = "export" if "PyTorch cannot export" in str(error) else "refused"
        subject.verdict = Verdict(call.text, kind, f"extraction: {_short(error)}")
        return subject
    except Exception as error:
        subject.verdict = Verdict(call.text, "crash", f"extraction: {_trace(error)}")
        return subject
    try:
        compile_ir(ir)
    except UnsupportedOpError as error:
        reasons = [f"{item.op}: {item.reason}" for item in error.refusals]
        internal = any(item.reason.startswith("internal") for item in error.refusals)
        subject.verdict = Verdict(call.text, "crash" if internal else "refused", "; ".join(reasons))
    except (IRError, ValueError) as error:
        typed = type(error).__module__.startswith(("npu_compiler", "torch_ir"))
        subject.verdict = Verdict(call.text, "refused" if typed else "crash", _trace(error))
    except Exception as error:
        subject.verdict = Verdict(call.text, "crash", _trace(error))
    else:
        subject.ir = ir
    return subject


def _run(group: list[_Subject], device: Device, undefined: Sequence[int]) -> None:
    """Compiles, builds and runs subjects as one program. The values of the ``undefined`` results are not
    judged."""
    irs = {f"s{index}": subject.ir for index, subject in enumerate(group) if subject.ir is not None}
    inputs: dict[str, Array] = {}
    for key, subject in zip(irs, group, strict=True):
        for name, tensor in zip(irs[key].inputs, subject.call.inputs, strict=True):
            inputs[f"{key}.{name}"] = _array(tensor)
    weights = {
        f"{key}.{name}": _array(tensor)
        for key, subject in zip(irs, group, strict=True)
        for name, tensor in subject.call.module.state_dict().items()
    }
    try:
        ran = graphs.run(compile_ir(graphs.merge(irs)), device, inputs, weights)
    except Exception as error:
        for subject in group:
            subject.verdict = Verdict(subject.call.text, "crash", f"run: {_trace(error)}")
        return
    for key, subject in zip(irs, group, strict=True):
        got = [ran.outputs[f"{key}.{output.name}"] for output in irs[key].outputs]
        problem = _different(subject, got, undefined)
        if problem:
            subject.verdict = Verdict(subject.call.text, "wrong", problem)


def _array(tensor: torch.Tensor) -> Array:
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def _different(subject: _Subject, got: list[Array], undefined: Sequence[int]) -> str:
    """What differs from eager PyTorch; "" for nothing."""
    if len(got) != len(subject.expected):
        return f"{len(got)} results instead of {len(subject.expected)}"
    exact: Callable[[], list[torch.Tensor]] = lambda: _in_double(subject.call)  # noqa: E731
    for index, (found, tensor) in enumerate(zip(got, subject.expected, strict=True)):
        wanted = _array(tensor.resolve_conj().resolve_neg())
        place = f"result {index}: " if len(got) > 1 else ""
        if found.shape != wanted.shape:
            return f"{place}shape {found.shape} instead of {wanted.shape}"
        if found.dtype != wanted.dtype:
            return f"{place}dtype {found.dtype} instead of {wanted.dtype}"
        problem = "" if index in undefined else _values(found, wanted, index, exact, subject.call.extreme)
        if problem:
            return place + problem
    return ""


def _values(
    found: Array, wanted: Array, index: int, exact: Callable[[], list[torch.Tensor]], extreme: bool
) -> str:
    if wanted.dtype.kind == "c":  # as pairs of real numbers
        real = f"f{wanted.itemsize // 2}"
        found, wanted = (np.ascontiguousarray(array)[..., None].view(real) for array in (found, wanted))
    name = wanted.dtype.name
    if name not in RTOL:
        bad = found != wanted
        return _told(found, wanted, bad) if bad.any() else ""
    left, right = found.astype(np.float64), wanted.astype(np.float64)
    odd = ~np.isfinite(left) | ~np.isfinite(right)
    bad = odd & ~((left == right) | (np.isnan(left) & np.isnan(right)))
    if bad.any() and name in ("float16", "bfloat16"):  # what overflows on the way only is not an error
        try:
            best = exact()[index].to(_TORCH[name]).double().numpy()
        except Exception:
            return _told(found, wanted, bad)
        bad &= ~((left == best) | (np.isnan(left) & np.isnan(best))) if best.shape == left.shape else True
        bad &= ~(np.abs(left - best) <= RTOL[name] * np.abs(best))
    if bad.any():
        return _told(found, wanted, bad)
    finite = ~odd
    scale = 0.0 if extreme else np.abs(right[finite]).max(initial=0.0)
    limit = RTOL[name] * np.abs(right) + 0.1 * RTOL[name] * scale + 1e-6 * (name != "float64")
    bad = np.zeros(left.shape, bool)
    bad[finite] = np.abs(left[finite] - right[finite]) > limit[finite]
    if bad.any() and name != "float64":
        try:
            best = exact()[index].double().numpy()
        except Exception:
            return _told(found, wanted, bad)
        if best.shape == left.shape:
            bad &= ~(np.abs(left - best) <= limit + 4 * np.abs(right - best))
    return _told(found, wanted, bad) if bad.any() else ""


def _in_double(call: Call) -> list[torch.Tensor]:
    wide = {True: torch.complex128, False: torch.float64}
    inputs = (
        tensor.to(wide[tensor.is_complex()])
        if tensor.is_floating_point() or tensor.is_complex()
        else tensor.clone()
        for tensor in call.inputs
    )
    with torch.no_grad():
        results = copy.deepcopy(call.module).double()(*inputs)
    return [
        torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor for tensor in results
    ]


def _told(found: Array, wanted: Array, bad: Array) -> str:
    at = tuple(int(i) for i in np.argwhere(bad)[0])
    return f"{int(bad.sum())} of {bad.size} differ, at {list(at)}: {found[at]} instead of {wanted[at]}"


def _short(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error))[:300]


def _trace(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/npu/" in frame.filename.replace("\\", "/")] or frames[-1:]
    place = f"{ours[-1].filename.rsplit('/', 1)[-1]}:{ours[-1].lineno}"
    return f"{type(error).__name__} at {place}: {_short(error)}"
