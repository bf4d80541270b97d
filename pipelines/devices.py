"""Which device a target's measurements are taken on, without opening OpenCL in the build's own process."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the process that looks for a device does without what reads configurations
    from collections.abc import Callable

    from pipelines.job import Job
    from pipelines.stages import Stage


@dataclass(frozen=True)
class Found:
    """A device: its short name in file names, what opens it, and its full name and driver; then its vendor,
    its own name and its driver, which tuned entries are looked up by."""

    slug: str
    selector: str
    identity: str
    vendor: str = ""
    name: str = ""
    driver: str = ""


@dataclass(frozen=True)
class Absent:
    """No device, and what to do about it."""

    remedy: str


def find(target: str) -> Found:
    """The device for ``target``: ``NPU_DEVICE``, else one of the target's kind. Opens OpenCL. Raises
    ``NoDeviceError``."""
    from npu_compiler.target import load_target
    from npu_runtime.device import find_device
    from npu_runtime.env import device_selector
    kind = load_target(target).device_type
    # a GPU target is measured on a GPU (nvidia on NVIDIA's); a CPU target runs on whatever is the default
    # device
    wanted = device_selector() or (None if kind in ("cpu", "any") else target if target == "nvidia" else kind)
    info = find_device(wanted)
    slug = info.selector.removesuffix(":0").replace(":", "-")
    return Found(slug, info.selector, f"{info.name}, {info.platform} {info.driver}, {info.threads} units",
                 info.vendor, info.name, f"{info.platform} {info.driver}")


def ask(target: str, root: Path) -> Found | Absent:
    """``find`` in a process of its own."""
    command = [sys.executable, "-m", "pipelines.devices", target]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return Found(**json.loads(done.stdout.splitlines()[-1]))
    said = done.stderr.strip().splitlines() or [f"no device for {target}"]
    return Absent(said[-1].removeprefix("error: "))


def on(job: Job, device: Found) -> Job:
    """``job`` measured on ``device``."""
    return replace(job, device=device.slug, selector=device.selector, device_id=device.identity)


def tuned_for(job: Job, device: Found) -> Job:
    """``job`` compiled with the tuned entries of ``device``."""
    from npu_compiler.target import load_target
    from npu_compiler.tuned import DeviceKey, family_of, file_name
    family = family_of(device.vendor, load_target(job.target).profile)
    exact = file_name(f"{device.vendor} {device.name}")
    return replace(job, tuned_for=DeviceKey(exact, family, device.driver))


def placed(stage: Stage, job: Job, look: Callable[[], Found | Absent]) -> Job | Absent:
    """``job`` as ``stage`` is to do it: on the device that ``look`` finds where it needs one, with that
    device's tuned entries where it reads such and the device is there."""
    if not (stage.device or stage.tuned):
        return job
    found = look()
    if isinstance(found, Absent):
        return found if stage.device else job
    return on(job, found) if stage.device else tuned_for(job, found)


if __name__ == "__main__":
    try:
        print(json.dumps(asdict(find(sys.argv[1]))))
    except Exception as failure:  # the message is for people, who see it as the reason of an absence
        sys.exit(f"error: {failure}")
