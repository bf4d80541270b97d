"""NPUBuffer: a dense, row-major tensor in device memory."""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType

import numpy as np

from npu_runtime.backend import Backend, Bytes, Memory, Ticket
from npu_runtime.dtypes import ITEM_SIZE, Array, is_integer, nbytes, numpy_dtype, spec_text
from npu_runtime.errors import InputError
from npu_runtime.program import IOSpec

_HALF = ("float16", "bfloat16")
_UNSIGNED = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}


class NPUBuffer:
    """A tensor on a device. Make one with ``from_numpy`` or ``zeros``; programs return them."""

    __slots__ = ("__weakref__", "_copy", "_range", "_ticket", "device", "dtype", "memory", "shape")

    def __init__(
        self,
        memory: Memory,
        shape: tuple[int, ...],
        dtype: str,
        device: Backend,
        value_range: tuple[int, int] | None = None,
    ) -> None:
        self.memory = memory
        self.shape = shape
        self.dtype = dtype
        self.device = device
        self._range = value_range
        self._copy: Array | None = None
        self._ticket: Ticket | None = None

    @classmethod
    def from_numpy(cls, array: object, device: Backend, spec: IOSpec | None = None) -> NPUBuffer:
        """Copies ``array`` (or what numpy makes an array of) to ``device``, in the dtype of ``spec``.

        Numbers are converted where none is lost, and floats to a 16-bit ``spec`` by rounding to nearest even;
        any other dtype, and a shape that ``spec`` rules out, is an ``InputError``.
        """
        dense = as_dense(array, spec)
        return cls(device.upload(as_bytes(dense)), dense.shape, dense.dtype.name, device, value_range(dense))

    @classmethod
    def zeros(cls, shape: Sequence[int], dtype: str, device: Backend) -> NPUBuffer:
        """A tensor of zeros. Raises ``InputError`` for a negative size or an unknown dtype."""
        if dtype not in ITEM_SIZE or any(size < 0 for size in shape):
            raise InputError(
                f"cannot make zeros {spec_text(dtype, shape)}: sizes must be 0 or more, the dtype one "
                f"of {', '.join(ITEM_SIZE)}"
            )
        memory = device.allocate(nbytes(shape, dtype))
        device.zero(memory)
        return cls(memory, tuple(shape), dtype, device, (0, 0) if is_integer(dtype) else None)

    def __repr__(self) -> str:
        return f"NPUBuffer({spec_text(self.dtype, self.shape)}, {self.device.name!r})"

    @property
    def nbytes(self) -> int:
        """Bytes of the dense tensor."""
        return nbytes(self.shape, self.dtype)

    def to_numpy(self, spec: IOSpec | EllipsisType | None = None) -> Array:
        """A copy as a numpy array of this buffer's dtype (bfloat16 is ml_dtypes').

        ``spec`` (a program's, or ``...`` and None for the buffer's own) must describe this buffer, else
        ``InputError``.
        """
        if isinstance(spec, IOSpec):
            check_spec(self.shape, self.dtype, spec)
        if self._copy is not None:
            if self._ticket is not None:
                self._ticket.wait()
            return self._copy.copy()
        out = np.empty(self.shape, numpy_dtype(self.dtype))
        self.device.read(self.memory, as_bytes(out))
        return out

    def keep_copy(self) -> Bytes:
        """Room for a copy of this buffer, which the caller fills and which ``to_numpy`` then gives. For a
        buffer that nothing writes any more."""
        self._copy = np.empty(self.shape, numpy_dtype(self.dtype))
        return as_bytes(self._copy)

    def filled_by(self, ticket: Ticket) -> None:
        """Says which work fills the copy: ``to_numpy`` waits for it."""
        self._ticket = ticket

    def bounds(self) -> tuple[int, int] | None:
        """The smallest and largest value of an integer tensor; None for others and for empty ones."""
        if self._range is None and is_integer(self.dtype):
            self._range = value_range(self.to_numpy())
        return self._range


def as_dense(array: object, spec: IOSpec | None = None) -> Array:
    """``array`` as a dense numpy array in the dtype and shape of ``spec``; raises ``InputError`` as
    ``from_numpy``."""
    source = array if type(array) is np.ndarray else to_array(array)
    if spec is not None and source.dtype == numpy_dtype(spec.dtype) and source.flags.c_contiguous:
        check_spec(source.shape, spec.dtype, spec)  # what a loop over tokens passes: nothing to convert
        return source
    name = f"input {spec.name!r}" if spec else "the array"
    if source.dtype.name not in ITEM_SIZE:
        raise InputError(f"{name} has dtype {source.dtype.name}: expected one of {', '.join(ITEM_SIZE)}")
    source = source.astype(source.dtype.newbyteorder("="), copy=False)
    if spec is not None:
        source = _convert(source, spec.dtype, name)
        check_spec(source.shape, source.dtype.name, spec)
    return np.ascontiguousarray(source).reshape(source.shape)


def to_array(value: object) -> Array:
    """``value`` as a numpy array; a PyTorch tensor of any dtype too."""
    detach = getattr(value, "detach", None)
    if detach is not None:
        tensor = detach().cpu().resolve_conj().resolve_neg()
        if str(tensor.dtype) == "torch.bfloat16":
            with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
                return np.asarray(tensor.float().numpy()).astype(numpy_dtype("bfloat16"))
        return np.asarray(tensor.numpy())
    return np.asarray(value)


def as_bytes(array: Array) -> Bytes:
    """The bytes of a dense array, without a copy."""
    return array.reshape(-1).view(np.uint8)


def value_range(array: Array) -> tuple[int, int] | None:
    """The smallest and largest value of a non-empty integer array; None for others."""
    if array.dtype.kind not in "iu" or array.size == 0:
        return None
    return int(np.minimum.reduce(array, axis=None)), int(np.maximum.reduce(array, axis=None))


def within(array: Array, lower: int | None, upper: int | None) -> bool:
    """Whether all values of an integer array lie between ``lower`` and ``upper``, as far as these are given;
    True for arrays of other dtypes."""
    if array.dtype.kind not in "iu" or array.size == 0:
        return True
    if lower == 0 and upper is not None and upper < 1 << (8 * array.itemsize - 1):
        # one pass: a negative number is a large one without a sign. argmax: reductions by ufuncs begin slowly
        unsigned = array.view(_UNSIGNED[array.itemsize])
        return int(unsigned.item(unsigned.argmax())) <= upper
    low, high = value_range(array) or (0, 0)
    return (lower is None or low >= lower) and (upper is None or high <= upper)


def check_spec(shape: Sequence[int], dtype: str, spec: IOSpec) -> None:
    """Raises ``InputError`` if a tensor of this shape and dtype cannot be ``spec`` (symbols take any
    size)."""
    if dtype == spec.dtype and len(shape) == len(spec.shape):
        for size, dim in zip(shape, spec.shape, strict=True):
            if size != dim and not isinstance(dim, str):
                break
        else:
            return
    raise InputError(
        f"{spec.name!r} is {spec_text(dtype, shape)}: expected {spec_text(spec.dtype, spec.shape)}"
    )


def _convert(array: Array, dtype: str, name: str) -> Array:
    target = numpy_dtype(dtype)
    if array.dtype == target:
        return array
    source = array.dtype.name
    if np.can_cast(array.dtype, target, "safe"):
        return array.astype(target)
    if dtype in _HALF and source in (*_HALF, "float32"):
        with np.errstate(over="ignore"):
            return array.astype(target)
    bounds = value_range(array)
    if array.dtype.kind in "iu" and is_integer(dtype):
        limits = np.iinfo(target)
        if bounds is None or (limits.min <= bounds[0] and bounds[1] <= limits.max):
            return array.astype(target)
        raise InputError(
            f"{name} is {source} with values from {bounds[0]} to {bounds[1]}, which {dtype} cannot hold"
        )
    raise InputError(
        f"{name} is {source}: expected {dtype}, and the conversion would lose numbers; "
        f"convert it yourself with .astype({dtype!r}) if that is meant"
    )
