"""What comes of cutting a model up and joining it."""

from __future__ import annotations

from dataclasses import dataclass

from vlmpass.ir_tools.save import SaveReport

__all__ = ["PartReport", "SplitReport"]


@dataclass(frozen=True)
class PartReport:
    """A model that was cut out or joined.

    Attributes:
        name: What it is called; empty where it is one of none.
        nodes: Nodes of its main graph.
        inputs: Type by name, such as ``float16[batch,seq,256]``.
        outputs: Likewise.
        nbytes: Bytes of its tensors.
        saved: What was written.
    """

    name: str
    nodes: int
    inputs: dict[str, str]
    outputs: dict[str, str]
    nbytes: int
    saved: SaveReport


@dataclass(frozen=True)
class SplitReport:
    """A model that was cut up.

    Attributes:
        manifest: Path of the manifest.
        parts: The parts, in the order in which they run.
        store: What was written for the weights that parts share; None where none was asked for.
    """

    manifest: str
    parts: tuple[PartReport, ...]
    store: SaveReport | None = None
