"""The steps of `benchmarks/step.py` as a plain PyTorch loop: same models, batches and losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

MEMORY_FORMATS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


def classifier(channels: int, filters: Sequence[int], classes: int) -> nn.Sequential:
    """A plain CNN that ends in logits."""
    layers: list[nn.Module] = []
    for count in filters:
        convolution = nn.Conv2d(channels, count, kernel_size=3, padding="same")
        layers += [convolution, nn.ReLU(), nn.MaxPool2d(2)]
        channels = count
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *pooled, nn.Linear(channels, classes))


def distillation_step(
    teacher: nn.Module,
    student: nn.Module,
    batches: Sequence[tuple[np.ndarray, np.ndarray]],
    memory_format: str,
    temperature: float = 4.0,
) -> Callable[[], None]:
    """A step of Hinton's distillation, on one batch after the other, which are tensors already."""
    layout = MEMORY_FORMATS[memory_format]
    teacher = teacher.eval().to(memory_format=layout)
    student = student.train().to(memory_format=layout)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    tensors = [
        (
            torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).contiguous(memory_format=layout),
            torch.from_numpy(labels),
        )
        for images, labels in batches
    ]
    number = 0

    def step() -> None:
        nonlocal number
        images, labels = tensors[number % len(tensors)]
        number += 1
        with torch.inference_mode():
            taught = functional.log_softmax(teacher(images) / temperature, dim=-1)
        logits = student(images)
        soft = functional.kl_div(
            functional.log_softmax(logits / temperature, dim=-1),
            taught,
            reduction="batchmean",
            log_target=True,
        )
        loss = 0.5 * functional.cross_entropy(logits, labels) + 0.5 * temperature**2 * soft
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step
