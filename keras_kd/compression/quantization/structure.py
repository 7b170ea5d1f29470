"""Structure left by earlier compressions in a kernel: zeros and equal weights."""

from __future__ import annotations

import numpy as np

# More different values than these are not the work of clustering.
MOST_CLUSTERS = 256
# Stands in a structure for a weight that is zero and stays it.
ZERO = -1


def structure_of(
    kernel: np.ndarray, channel_axis: int = -1, *, zeros: bool = True, clusters: bool = True
) -> np.ndarray | None:
    """Which weights of a kernel stay zero, and which stay equal.

    Weights count as clustered if the kernel, or each of its output channels, has at most
    `MOST_CLUSTERS` different values and fewer than half as many as weights. A kernel of a single
    value has nothing to keep.

    Args:
        kernel: any shape.
        channel_axis: the axis of its output channels.
        zeros: whether weights that are zero stay zero.
        clusters: whether weights of a clustered kernel that are equal stay equal.

    Returns:
        For each weight `ZERO`, or the position in the flattened kernel of the first weight that it
        stays equal to, which may be its own; int32 in the kernel's shape. None where every
        weight is on its own.
    """
    flat = kernel.reshape(-1)
    if flat.size == 0 or np.all(flat == flat[0]):
        return None
    leaders = np.arange(flat.size, dtype=np.int32)
    if clusters and _are_clusters(flat):
        leaders = _first_of_each_value(flat)
    elif clusters and kernel.ndim > 1:
        places = np.moveaxis(leaders.reshape(kernel.shape), channel_axis, -1)
        channels = places.reshape(-1, kernel.shape[channel_axis]).T
        if all(_are_clusters(flat[channel]) for channel in channels):
            for channel in channels:
                leaders[channel] = channel[_first_of_each_value(flat[channel])]
    if zeros:
        leaders = np.where(flat == 0, ZERO, leaders)
    leaders = leaders.astype(np.int32).reshape(kernel.shape)
    is_free = np.array_equal(leaders.reshape(-1), np.arange(flat.size))
    return None if is_free else leaders


def _are_clusters(values: np.ndarray) -> bool:
    count = len(np.unique(values))
    return count <= MOST_CLUSTERS and count < values.size / 2


def _first_of_each_value(values: np.ndarray) -> np.ndarray:
    _, first, which = np.unique(values, return_index=True, return_inverse=True)
    return first[which.reshape(-1)].astype(np.int32)


def parts_of_structure(structure: np.ndarray) -> list[str]:
    """What a structure keeps: "zeros", "clusters" or both."""
    flat = structure.reshape(-1)
    kept = np.flatnonzero(flat != ZERO)
    found = ["zeros"] if len(kept) < flat.size else []
    return [*found, "clusters"] if np.any(flat[kept] != kept) else found
