"""Write the pages that come from the code: passes, rules and opset steps.

python docs/generate.py [FOLDER]
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from vlmpass.ir_tools.operators.schema import operators
from vlmpass.ir_tools.rewrite import all_rules
from vlmpass.passes.pipeline.needs import Need
from vlmpass.passes.pipeline.options import options_of, summary_of
from vlmpass.passes.pipeline.registry import PASSES
from vlmpass.rewriter_rules.opset import StepSummary, tell

NOTE = "This page is written by `python docs/generate.py`; edit the code it comes from.\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def passes_page() -> Iterator[str]:
    """Every pass with its options."""
    yield "# Passes\n"
    yield NOTE
    for name, cls in sorted(PASSES.items()):
        yield f"## {name}\n"
        yield f"{summary_of(cls)}\n"
        for need in sorted(cls.needs, key=list(Need).index):
            yield f"Needs {need.value}: {need.says}.\n"
        options = options_of(cls)
        if not options:
            continue
        yield "| option | takes | default | |"
        yield "|---|---|---|---|"
        for option in options:
            label = "NAME" if option.free else option.name
            default = "required" if option.required else ""
            if not option.required and not option.free:
                default = option.kind.write(option.default)
            cells = (f"`{label}`", option.kind.says, default, option.doc)
            yield "| " + " | ".join(_cell(cell) for cell in cells) + " |"
        yield ""


def rules_page() -> Iterator[str]:
    """Every rule with its formula and what it needs."""
    yield "# Rules\n"
    yield NOTE
    yield "| rule | before -> after | needs | source |"
    yield "|---|---|---|---|"
    root = Path(__file__).resolve().parent.parent
    for rule in all_rules():
        place = f"`{Path(rule.file).resolve().relative_to(root).as_posix()}`"
        cells = (f"`{rule.name}`", f"`{rule.formula}`", ", ".join(rule.needs), place)
        yield "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _step(told: StepSummary | None) -> str:
    if told is None:
        return ""
    if told.kind == "same":
        return "same"
    return f"{told.kind}: {told.says}"


def opset_page() -> Iterator[str]:
    """Every operator's versions and steps."""
    told = {operator: tell(operator) for operator in operators()}
    steps = [step for each in told.values() for v in each for step in (v.up, v.down) if step]
    counts = Counter(step.kind for step in steps)
    yield "# Opset steps\n"
    yield NOTE
    yield "What each step between two versions of an operator comes to: *same*, only types change;"
    yield "*exact*, another form of the operator; *expanded*, other operators; *refused*, for every"
    yield "node. Exact and expanded steps may still refuse single nodes, with the reason.\n"
    yield "A conversion starts from the opset that the file says. A model with nodes of another one"
    yield "(a Gelu in opset 17, a blocked DequantizeLinear in 19) is invalid;"
    yield "[`--restamp`](command-line.md#an-opset-that-is-stamped-wrong) puts that right first.\n"
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in sorted(counts))
    yield f"Of onnx {version('onnx')}: {kinds}.\n"
    yield "| operator | since | changed | up to it | down from it |"
    yield "|---|---|---|---|---|"
    for operator, versions in told.items():
        for each in versions:
            cells = (
                f"`{operator}`",
                str(each.since),
                "; ".join(each.changes),
                _step(each.up),
                _step(each.down),
            )
            yield "| " + " | ".join(_cell(cell) for cell in cells) + " |"


PAGES = {"passes.md": passes_page, "rules.md": rules_page, "opset.md": opset_page}


def main(folder: Path) -> None:
    """Write every page into a folder."""
    for name, page in PAGES.items():
        (folder / name).write_text("\n".join(page()).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
