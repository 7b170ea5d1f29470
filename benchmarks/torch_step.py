"""The steps of `benchmarks/step.py` as a plain PyTorch loop: same models, batches and losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

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
    examples: tuple[np.ndarray, np.ndarray],
    batch_size: int,
    memory_format: str,
    temperature: float = 4.0,
) -> Callable[[], None]:
    """A step of Hinton's distillation on the next batch of examples, shuffled, in memory."""
    layout = MEMORY_FORMATS[memory_format]
    teacher = teacher.eval().to(memory_format=layout)
    student = student.train().to(memory_format=layout)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    images = torch.from_numpy(examples[0].transpose(0, 3, 1, 2).copy())
    images = images.contiguous(memory_format=layout)
    labels = torch.from_numpy(examples[1])
    batches = _shuffled(len(images), batch_size)

    def step() -> None:
        batch = next(batches)
        seen = images[batch].contiguous(memory_format=layout)
        with torch.inference_mode():
            taught = functional.log_softmax(teacher(seen) / temperature, dim=-1)
        logits = student(seen)
        soft = functional.kl_div(
            functional.log_softmax(logits / temperature, dim=-1),
            taught,
            reduction="batchmean",
            log_target=True,
        )
        hard = functional.cross_entropy(logits, labels[batch])
        loss = 0.5 * hard + 0.5 * temperature**2 * soft
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _shuffled(count: int, batch_size: int) -> Iterator[torch.Tensor]:
    """The numbers of the examples of batch after batch, each epoch in a new order."""
    while True:
        yield from torch.randperm(count).split(batch_size)
