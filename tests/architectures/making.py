"""What tiny models of all families are made with, and their inputs of two sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "BATCH",
    "HEADS",
    "HIDDEN",
    "LAYERS",
    "SIDES",
    "SOUND",
    "TEXT_DIMS",
    "VOCAB",
    "Calling",
    "Family",
    "Inputs",
    "Tensors",
    "builder",
    "language",
    "pixels",
    "sound",
    "text",
    "tower",
]  # fmt: skip

HIDDEN, HEADS, LAYERS, VOCAB = 32, 4, 2, 96
Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
        name: How it is called.
        make: Makes the model.
        inputs: What it takes, at size 0, which is exported, and at size 1.
        dims: The open axes of each input.
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[int], Inputs]
    dims: Mapping[str, dict[int, str]]


class Tensors(nn.Module):
    """A model whose inputs and outputs are tensors, at most three of them."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        result = self.model(**dict(zip(self.names, tensors, strict=True)))
        return tuple(_flat(result))[:3]


def _flat(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, list | tuple):
        return [each for part in result for each in _flat(part)]
    return []


class Calling(nn.Module):
    """A model called in another way than by its forward."""

    def __init__(self, model: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.call = model, call

    def forward(self, **given: Tensor) -> Any:
        return self.call(self.model, **given)


def builder(config: Any, make: Any, call: Callable[..., Any] | None = None) -> Any:
    def model() -> nn.Module:
        torch.manual_seed(0)
        if hasattr(config, "use_cache"):
            config.use_cache = False
        if config is not None:
            config._experts_implementation = "batched_mm"  # the one that both exporters take
        text = getattr(config, "text_config", None)
        if text is not None and hasattr(text, "use_cache"):
            text.use_cache = False
        made = make(config) if isinstance(make, type) else make()
        for name, each in made.named_parameters():
            if "weight" in name and each.ndim == 1:
                each.data += 0.1 * torch.randn_like(each)
        made = made.eval()
        return Calling(made, call).eval() if call else made

    return model


def text(size: int, mask: bool = True) -> Inputs:
    torch.manual_seed(3 + size)
    batch, length = ((2, 6), (3, 9))[size]
    given = {"input_ids": torch.randint(3, VOCAB - 8, (batch, length))}
    if mask:
        given["attention_mask"] = torch.ones(batch, length, dtype=torch.int64)
        given["attention_mask"][1, -2:] = 0
    return given


TEXT_DIMS = {"input_ids": {0: "batch", 1: "seq"}, "attention_mask": {0: "batch", 1: "seq"}}


def pixels(side: int, open_sides: bool = False, name: str = "pixel_values") -> Any:
    def inputs(size: int) -> Inputs:
        torch.manual_seed(5 + size)
        sides = (side * 3 // 2, side * 2) if open_sides and size else (side, side)
        return {name: torch.randn(2 + size, 3, *sides)}

    return inputs


def sound(samples: int, name: str = "input_values") -> Any:
    def inputs(size: int) -> Inputs:
        torch.manual_seed(7 + size)
        return {name: torch.randn(2 + size, samples + 320 * size)}

    return inputs


BATCH = {"pixel_values": {0: "batch"}}
SIDES = {"pixel_values": {0: "batch", 2: "height", 3: "width"}}
SOUND = {"input_values": {0: "batch", 1: "samples"}}


def language(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": 2, "vocab_size": VOCAB,
        "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        "use_cache": False, **more,
    }  # fmt: skip


def tower(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "image_size": 16, "patch_size": 4, **more,
    }  # fmt: skip
