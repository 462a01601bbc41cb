"""A pass of one's own in a pipeline, beside those of vlmpass and of onnx_ir.

A pass that others are to name in pipeline text is registered as an entry point:

    [project.entry-points."vlmpass.passes"]
    rename-prefix = "my_package.rename_prefix:RenamePrefix"

python examples/own_pass.py
"""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from vlmpass import Pipeline
from vlmpass.demo_model import Sizes, build_demo_model
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.passes import Pass, parse


@dataclass(frozen=True)
class RenamePrefix(Pass):
    """Put one prefix in the place of another in the names of all nodes."""

    name: ClassVar[str] = "rename-prefix"

    old: str
    """The prefix that goes."""

    new: str = ""
    """The prefix that comes."""

    def run(self, model: ir.Model) -> bool:
        """Rename in place, and say whether anything changed."""
        changed = False
        for node in all_nodes(model):
            if node.name and node.name.startswith(self.old):
                node.name = self.new + node.name.removeprefix(self.old)
                changed = True
        return changed


def main() -> None:
    passes = [
        *parse("unify-dtype{to=float32},convert-opset{to=18}"),
        ClearMetadataAndDocStringPass(),
        RenamePrefix(old="/model/", new="/decoder/"),
    ]
    model = build_demo_model(Sizes())  # stays as it is
    report = Pipeline(passes).run(model, verify=True)
    print(report)


if __name__ == "__main__":
    main()
