"""The graphs that speed is measured on, by name: weights are tiny, so that only nodes count."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import cached
import decoder
import exposed
import towers

__all__ = ["FAMILIES", "make"]

PER_LAYER = 70
"""Nodes of a layer of the plain decoder."""


def _plain(path: Path, nodes: int) -> None:
    small = decoder.Config(hidden=16, heads=4, kv_heads=2, intermediate=32, vocab=64, opset=14)
    decoder.make(path, dataclasses.replace(small, layers=-(-nodes // PER_LAYER)))


FAMILIES: dict[str, Callable[[Path, int], None]] = {
    "decoder": _plain,
    "cached": cached.make,
    "towers": towers.make,
    "exposed": exposed.make,
}


def make(family: str, path: Path, nodes: int) -> None:
    """Write a model of a family with about so many nodes."""
    FAMILIES[family](path, nodes)
