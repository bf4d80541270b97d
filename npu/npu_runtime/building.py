"""From OpenCL C to a program of a device, or to a message that names the kernel which does not build."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from npu_runtime import env, program_cache
from npu_runtime.errors import DeviceError

if TYPE_CHECKING:
    from npu_runtime.device import DeviceInfo

#: The vendor's macro in kernels, 1 where the device is of that vendor.
MACROS = {"pocl": "NPU_POCL", "intel": "NPU_INTEL", "nvidia": "NPU_NVIDIA"}


def build_program(
    cl: Any,
    context: Any,
    device: Any,
    info: DeviceInfo,
    sources: Sequence[tuple[str, str]],
    options: Sequence[str],
) -> Any:
    """One program of all ``sources`` (file name, text) in order, from the cache where it was built before.
    ``cl``: pyopencl; ``context`` and ``device``: its objects, of the device ``info``. Raises ``DeviceError``
    with the log."""
    macro = MACROS.get(info.vendor)
    quiet = env.debug_level() < env.SOURCE
    flags = [*options, *([f"-D{macro}=1"] if macro else []), *(["-w"] if quiet else [])]
    text = "".join(f'#line 1 "{name}"\n{source.rstrip()}\n' for name, source in sources)
    if not quiet:
        env.debug(env.SOURCE, f"building for {info.name} with {' '.join(flags)}:\n{text}")

    def built(program: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", cl.CompilerWarning)
                return cl.Program(program).build(flags)
        except cl.Error:
            log = program.get_build_info(device, cl.program_build_info.LOG).strip()
        raise DeviceError(build_message(log, text, info.name))

    # PoCL and NVIDIA keep built programs themselves (and fetching PoCL's costs another build)
    if info.vendor in ("pocl", "nvidia"):
        return built(cl._Program(context, text))
    key = program_cache.cache_key(text, flags, info.name, f"{info.platform} {info.driver}")
    binary = program_cache.load(key)
    if binary is not None:
        try:
            return built(cl._Program(context, [device], [binary]))
        except (DeviceError, cl.Error):
            program_cache.discard(key)
    program = built(cl._Program(context, text))
    program_cache.store(key, program.get_info(cl.program_info.BINARIES)[0])
    return program


def build_message(log: str, text: str, device: str) -> str:
    """The first kernel that the log blames, then the log, shortened in the middle."""
    blamed = blamed_kernel(log, text)
    lines = log.splitlines() or ["the driver gives no reason"]
    if len(lines) > 60:
        lines = [*lines[:40], f"... {len(lines) - 60} lines ...", *lines[-20:]]
    what = f"kernel {blamed!r}" if blamed else "the program"
    return f"{what} does not build on {device}:\n" + "\n".join(lines)


def blamed_kernel(log: str, text: str) -> str | None:
    """The kernel whose file the first error in ``log`` names; None if it names none."""
    named = re.search(r"kernels/(\w+)\.cl:\d+(?::\d+)?: (?:fatal )?error|error: kernels/(\w+)\.cl:", log)
    if named:
        return named[1] or named[2]
    # NVIDIA's compiler ignores #line and counts the lines of the whole text
    counted = re.search(r"<kernel>:(\d+):\d+: (?:fatal )?error", log)
    before = text.splitlines()[: int(counted[1])] if counted else []
    starts = re.findall(r'^#line 1 "kernels/(\w+)\.cl"$', "\n".join(before), re.MULTILINE)
    return starts[-1] if starts else None
