"""What a pipeline did, pass by pass, in plain data (`dataclasses.asdict` gives JSON)."""

from __future__ import annotations

from dataclasses import dataclass

from vlmpass.ir_tools.graph.effects import EXACT, NumberChanges

__all__ = ["PassReport", "RunReport"]


@dataclass(frozen=True)
class PassReport:
    """One pass.

    Attributes:
        text: The pass as pipeline text.
        changed: Whether it said it changed something.
        skipped: Whether an instrument kept it from running.
        seconds: Its wall time, without that of other instruments.
        peak_rss: The most bytes of physical memory the process had held when it ended.
        rss_change: By how many bytes the memory in use grew (negative: shrank) meanwhile.
        nodes_before: Nodes of the whole model, subgraphs and functions included.
        nodes_after: The same afterwards, counted on the graph.
        needed_by: The pass of the pipeline that needs what this one gives, where nobody asked
            for it; empty for a pass of the pipeline.
    """

    text: str
    changed: bool
    skipped: bool
    seconds: float
    peak_rss: int
    rss_change: int
    nodes_before: int
    nodes_after: int
    needed_by: str = ""


@dataclass(frozen=True)
class RunReport:
    """A pipeline.

    Attributes:
        pipeline: Its text.
        passes: Every pass in order, skipped ones included.
        seconds: Wall time of everything, copying the model and instruments included.
        changes: What the passes did to numbers, which a comparison is to allow for.
    """

    pipeline: str
    passes: tuple[PassReport, ...]
    seconds: float
    changes: NumberChanges = EXACT

    @property
    def changed(self) -> bool:
        """Whether any pass changed something."""
        return any(each.changed for each in self.passes)

    @property
    def peak_rss(self) -> int:
        """The most bytes of physical memory the process had held after any pass; 0 for no pass."""
        return max((each.peak_rss for each in self.passes), default=0)
