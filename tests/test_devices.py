"""Sizes, limits and the table of devices."""

import numpy as np
import pytest

from keras_kd import devices
from keras_kd.devices import Device


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("64 KB", 65536),
        ("64KB", 65536),
        ("64k", 65536),
        ("64 KiB", 65536),
        ("1.5 MB", 1572864),
        ("2G", 2147483648),
        ("100", 100),
        ("100 bytes", 100),
        (4096, 4096),
        (4096.0, 4096),
        (np.int64(4096), 4096),
    ],
)
def test_sizes_are_parsed(text, expected):
    assert devices.parse_size("flash", text) == expected


@pytest.mark.parametrize("text", ["", "KB", "-1 KB", "64 XB", "64 KB 2", "0", 0, -5])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match=r"Received flash=.*Expected .*To fix it: "):
        devices.parse_size("flash", text)


@pytest.mark.parametrize("size", [None, True, 1.5, [64], float("nan"), float("inf")])
def test_other_types_are_refused(size):
    with pytest.raises(TypeError, match="Expected a size in bytes"):
        devices.parse_size("flash", size)


def test_the_reserved_part_is_not_for_the_model():
    device = Device("64 KB", "32 KB", reserved_flash="4 KB", reserved_ram=1024)
    assert device.flash_bytes == 60 * 1024
    assert device.ram_bytes == 31 * 1024


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "without a limit"),
        ({"flash": "64 KB", "latency": 3.0}, "cannot be measured"),
        ({"ram": "64 KB", "target": "android"}, "leave ram out"),
        ({"flash": "64 KB", "compressed": True}, "holds the file as it is"),
        ({"flash": "64 KB", "target": "phone"}, "'microcontroller', 'android', 'web'"),
        ({"flash": "64 KB", "kernels": "fast"}, "'reference', 'cmsis_nn'"),
        ({"flash": "4 KB", "reserved_flash": "4 KB"}, "less than all of it"),
        ({"ram": "4 KB", "reserved_flash": "4 KB"}, "without flash"),
        ({"latency": 0, "target": "web"}, "above 0"),
    ],
)
def test_limits_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Device(**options)


def test_known_devices_say_where_their_figures_come_from():
    for name, device in devices.DEVICES.items():
        assert name == device.name == devices.get(name).name
        assert device.source


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="'cortex-m4-256k'"):
        devices.get("toaster")
    with pytest.raises(TypeError, match="Device"):
        devices.get(64)


def test_users_add_their_own(monkeypatch):
    monkeypatch.setattr(devices, "DEVICES", dict(devices.DEVICES))
    board = devices.add(Device("64 KB", name="board"))
    assert devices.get("board") is board
    assert devices.add(Device("64 KB", name="board")) == board
    with pytest.raises(ValueError, match="free"):
        devices.add(Device("32 KB", name="board"))


def test_limits_are_printed():
    assert str(Device("64 KB", "32 KB")) == "device (microcontroller): 64.0 KB flash, 32.0 KB RAM"
