"""Convert a bfloat16 model to float32 at opset 18, and look at the report.

python examples/convert.py            # a small model it makes itself
python examples/convert.py big.onnx   # yours
"""

import sys
import tempfile
from pathlib import Path

from vlmpass import Pipeline, VlmpassError
from vlmpass.demo_model import write_demo_model


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        given = Path(sys.argv[1]) if len(sys.argv) > 1 else None
        source = given or write_demo_model(Path(folder) / "tiny-vlm.onnx")
        pipeline = Pipeline(opset=18, dtype="float32", target="ort-cpu")
        try:
            report = pipeline.convert(source, source.with_name(f"{source.stem}.float32.onnx"))
        except VlmpassError as error:  # it cannot be done right, and nothing was written
            print(f"refused: {error}", file=sys.stderr)
            return 2
    print(report)
    print(f"\n{len(report.passes)} passes: {report.pipeline}")
    if report.checked.numbers is not None:
        print(f"largest relative error: {report.checked.numbers.max_rel:.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
