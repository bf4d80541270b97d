"""What this package raises. Each message names the thing, what was expected and the remedy."""

from __future__ import annotations


class NpubinError(Exception):
    """Base of every error that this package raises on purpose."""


class FormatError(NpubinError, ValueError):
    """A file (``.npubin`` or safetensors) or a program's description is not what it must be."""


class InputError(NpubinError, ValueError):
    """An argument of a call does not fit: an input's name, shape, dtype or values, or a setting."""


class WeightsMismatchError(NpubinError, ValueError):
    """Weights do not belong to the program: missing, of another shape, or prepared for another one."""


class NoDeviceError(NpubinError, RuntimeError):
    """No OpenCL device fits the request. Says what to install."""


class DeviceError(NpubinError, RuntimeError):
    """The driver refused to build, allocate or launch. Names what it refused."""
