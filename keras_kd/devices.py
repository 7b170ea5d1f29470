"""Devices and their limits: flash, memory, time.

`DEVICES` holds some by name; `add` puts your own beside them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

from keras_kd._checks import check_choice, check_flag, check_number, check_type, problem

__all__ = ["DEVICES", "Device", "add", "get", "parse_size"]

TARGETS = ("microcontroller", "android", "web")
KERNELS = ("reference", "cmsis_nn")
_UNITS = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMG]?)(?P<bytes>I?B|BYTES?)?", re.I)


def parse_size(name: str, size: Any) -> int:
    """Bytes from a number or a text such as "64 KB".

    As in data sheets, K, M and G are powers of 1024: "64 KB", "64k" and "64 KiB" are 65,536 bytes.

    Args:
        name: of the argument, for messages.
        size: a whole number of bytes, or a text.

    Raises:
        TypeError: if it is neither.
        ValueError: if it is no size, or less than a byte.
    """
    fix = f'pass {name}="64 KB", or a number of bytes'
    if isinstance(size, str):
        match = _SIZE.fullmatch(size.strip())
        if match is None:
            raise problem(f"{name}={size!r}", "a number and B, KB, MB or GB", fix)
        size = int(float(match["number"]) * _UNITS[match["unit"].upper()])
    if isinstance(size, float) and size.is_integer():
        size = int(size)
    # NumPy's, too.
    if isinstance(size, Integral) and not isinstance(size, bool):
        size = int(size)
    if not isinstance(size, int) or isinstance(size, bool):
        raise problem(f"{name}={size!r}", "a size in bytes", fix, kind=TypeError)
    if size < 1:
        raise problem(f"{name}={size!r}", "at least one byte", fix)
    return size


@dataclass(frozen=True)
class Device:
    """A device, and what a model may take there. None: no limit.

    On a microcontroller `flash` holds the whole binary: the model, the core of TensorFlow Lite
    Micro (TFLM) and the kernels of the model's operators, as they were linked for a Cortex-M4 with
    -Os. On other devices it is the size of the file. `ram` is compared with the tensor arena that
    TFLM takes; the stack and the variables of the firmware belong into `reserved_ram`.

    Args:
        flash: bytes, or a text such as "64 KB" (1 KB = 1024 bytes).
        ram: bytes, likewise; on microcontrollers only.
        latency: milliseconds for one example in LiteRT on one thread, measured on the computer
            that searches: a phone needs longer or shorter. On "android" and "web" only.
        target: where the file runs: "microcontroller", "android" or "web".
        name: what the device is called.
        kernels: on microcontrollers, whose kernels are linked: "reference", or "cmsis_nn", which
            are faster on a Cortex-M and take more flash. None: their size is not known, and the
            model alone is compared with `flash`.
        reserved_flash: bytes of `flash` that the rest of the firmware takes.
        reserved_ram: bytes of `ram` that the rest of the firmware takes.
        compressed: whether `flash` is compared with the file after gzip, as for a download. The
            student is then pruned, which makes the compressed file smaller.
        source: where the figures come from.

    Attributes:
        flash_bytes: what of `flash` the reserved part leaves; None without a limit.
        ram_bytes: what of `ram` the reserved part leaves; None without a limit.

    Raises:
        TypeError: if a limit is of another type.
        ValueError: if there is no limit, or one is out of range or means nothing for the target.

    Example:
        >>> keras_kd.devices.Device(flash="64 KB", ram="32 KB").flash_bytes
        65536
    """

    flash: int | str | None = None
    ram: int | str | None = None
    latency: float | None = None
    target: str = "microcontroller"
    name: str = "device"
    kernels: str | None = "reference"
    reserved_flash: int | str | None = None
    reserved_ram: int | str | None = None
    compressed: bool = False
    source: str = ""
    flash_bytes: int | None = field(init=False, repr=False)
    ram_bytes: int | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_choice("target", self.target, TARGETS)
        check_flag("compressed", self.compressed)
        if self.kernels is not None:
            check_choice("kernels", self.kernels, KERNELS)
        for name in ("flash", "ram"):
            left = _left(name, getattr(self, name), getattr(self, f"reserved_{name}"))
            object.__setattr__(self, f"{name}_bytes", left)
        if self.latency is not None:
            check_number("latency", self.latency, above=0, fix="pass milliseconds, such as 10")
        self._check_limits()

    def _check_limits(self) -> None:
        is_micro = self.target == "microcontroller"
        if is_micro and self.latency is not None:
            raise problem(
                f"latency={self.latency} for a microcontroller",
                "flash and ram: its time cannot be measured on this computer",
                "leave latency out",
            )
        if not is_micro and self.ram is not None:
            raise problem(
                f"ram={self.ram!r} for target={self.target!r}",
                "flash (the size of the file) and latency, which are measured there",
                "leave ram out",
            )
        if is_micro and self.compressed:
            raise problem(
                "compressed=True for a microcontroller",
                "False: its flash holds the file as it is",
                "leave compressed out",
            )
        if self.flash is None and self.ram is None and self.latency is None:
            raise problem(
                f"a device for target={self.target!r} without a limit",
                "flash or ram" if is_micro else "flash or latency",
                'pass flash="64 KB", ram="32 KB"' if is_micro else "pass latency=10",
            )

    def __str__(self) -> str:
        limits = [
            f"{bytes_as_text(value)} {name}"
            for name, value in (("flash", self.flash_bytes), ("RAM", self.ram_bytes))
            if value is not None
        ]
        if self.latency is not None:
            limits.append(f"{self.latency:g} ms")
        return f"{self.name} ({self.target}): {', '.join(limits)}"


def bytes_as_text(count: float) -> str:
    """65536 as "64.0 KB", smaller numbers in bytes."""
    return f"{count:,.0f} B" if count < 1000 else f"{count / 1024:,.1f} KB"


def _left(name: str, size: Any, reserved: Any) -> int | None:
    if size is None:
        if reserved is not None:
            raise problem(
                f"reserved_{name}={reserved!r} without {name}",
                f"{name}, of which it is a part",
                f"pass {name} too",
            )
        return None
    whole = parse_size(name, size)
    left = whole - (0 if reserved is None else parse_size(f"reserved_{name}", reserved))
    if left < 1:
        raise problem(
            f"reserved_{name}={reserved!r} of {name}={size!r}",
            "less than all of it, so that the model gets a part",
            f"pass a smaller reserved_{name}",
        )
    return left


DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        Device(
            "256 KB",
            "64 KB",
            name="cortex-m4-256k",
            kernels="cmsis_nn",
            source="STM32L433RC (Cortex-M4): 256 KiB of flash, 64 KiB of RAM. RIOT, Nucleo-L433RC: "
            "https://doc.riot-os.org/boards/nucleo-l433rc",
        ),
        Device(
            "512 KB",
            "128 KB",
            name="nrf52833",
            kernels="cmsis_nn",
            source="nRF52833 (Cortex-M4): 512 KB of flash, 128 KB of RAM. PlatformIO, Calliope "
            "mini v3: https://docs.platformio.org/en/latest/boards/nordicnrf52/calliopemini_v3.html",
        ),
        Device(
            "1 MB",
            "256 KB",
            name="nrf52840",
            kernels="cmsis_nn",
            source="nRF52840 (Cortex-M4): 1 MB of flash, 256 KB of RAM. Arduino's data sheet of "
            "the Nano 33 BLE Sense Rev2 (ABX00069)",
        ),
        Device(
            "2 MB",
            "640 KB",
            name="stm32l4r5",
            kernels="cmsis_nn",
            source="STM32L4R5ZI (Cortex-M4): 2 MiB of flash, 640 KiB of RAM. RIOT, Nucleo-L4R5ZI: "
            "https://doc.riot-os.org/boards/nucleo-l4r5zi",
        ),
        Device(
            "2 MB",
            "264 KB",
            name="rp2040",
            source="RP2040 on a Raspberry Pi Pico: 264 KB of SRAM, 2 MB of flash. Product brief: "
            "https://datasheets.raspberrypi.com/pico/pico-product-brief.pdf. It is a "
            "Cortex-M0+; the size of the kernels is that for a Cortex-M4",
        ),
        Device(
            ram="320 KB",
            name="esp32",
            kernels=None,
            source="ESP32: 320 KB of DRAM. ESP-IDF programming guide (memory types): "
            "https://docs.espressif.com/projects/esp-idf/en/latest/esp32/api-guides/"
            "memory-types.html. No limit to the flash, which differs from module to module; the "
            "size of TFLM's kernels for Xtensa is not known here",
        ),
        Device(
            latency=1000 / 30,
            target="android",
            name="pixel",
            source="chosen here, not measured on a phone: the time between two frames of a camera "
            "with 30 frames per second; no limit to the file",
        ),
        Device(
            latency=1000 / 60,
            target="web",
            name="browser",
            source="chosen here, not measured in a browser: the time between two frames of a page "
            "drawn 60 times per second; no limit to the file",
        ),
    )
}


def get(device: str | Device) -> Device:
    """The device of a name in `DEVICES`; a `Device` is returned as it is.

    Raises:
        TypeError: if it is neither.
        ValueError: if the name is unknown; the message lists the known ones.
    """
    if isinstance(device, str):
        return DEVICES[check_choice("device", device, tuple(DEVICES))]
    check_type("device", device, Device, 'Device(flash="64 KB", ram="32 KB") or a name')
    return device


def add(device: Device) -> Device:
    """Put a device into `DEVICES` under its name, and return it.

    Raises:
        TypeError: if it is no `Device`.
        ValueError: if another device has this name.
    """
    check_type("device", device, Device, 'Device(flash="64 KB", ram="32 KB", name="board")')
    if DEVICES.get(device.name, device) != device:
        raise problem(
            f"a device named {device.name!r}", "a name that is free", "give it another name"
        )
    DEVICES[device.name] = device
    return device
