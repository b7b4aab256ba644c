"""Where a language model runs: the choice of device and number format, in one place."""

import torch

from persona.errors import ModelError


def resolve_device(device: str = "auto") -> torch.device:
    """The device to run on: "auto" takes CUDA where there is a GPU and the CPU otherwise.

    Args:
        device: "auto" or anything that `torch.device` reads, such as "cpu" or "cuda:1".

    Returns:
        A device that exists on this machine.

    Raises:
        ModelError: The name is not a device, or asks for a GPU that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as err:
        raise ModelError(
            f"`device` must be 'auto', 'cpu', 'cuda' or 'cuda:N'; got {device!r}. Use 'auto' to take what is "
            "there."
        ) from err
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"`device` must exist on this machine; got {device!r} with {torch.cuda.device_count()} visible "
            "GPUs. Use 'auto' or 'cpu'."
        )
    return chosen


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are faster than in float32 there: true of CPUs with AVX-512 BF16 instructions."""
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def default_dtype(device: torch.device) -> torch.dtype:
    """Number format of frozen weights: bfloat16 on a GPU, float32 elsewhere."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32
