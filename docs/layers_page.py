"""Make the picture of a page of `verify --html` that docs/debugging.md shows.

python docs/layers_page.py

A Softmax of an exported decoder is given a wrong axis. The page is drawn by a headless Chromium.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx_ir as ir

import vlmpass

HERE = Path(__file__).parent
SOURCE = HERE.parent / "tests" / "fixtures" / "exports" / "decoder.float32.dyn18.onnx"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def wrong_model(path: Path) -> None:
    """Write the decoder with the wrong axis."""
    model = vlmpass.load(SOURCE)
    node = next(node for node in model.graph if node.op_type == "Softmax")
    node.attributes["axis"] = ir.AttrInt64("axis", 1)
    vlmpass.save(model, path)


def main() -> int:
    """Write the picture beside this script."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.stderr.write(f"none of {', '.join(BROWSERS)} is installed\n")
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wrong_model(folder / "wrong.onnx")
        page = folder / "page.html"
        words = ["verify", str(SOURCE), str(folder / "wrong.onnx"), "--html", str(page)]
        subprocess.run([sys.executable, "-m", "vlmpass", *words], check=False, capture_output=True)
        picture = f"--screenshot={HERE / 'layers_page.png'}"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        words = [*flags, "--window-size=1040,1460", picture, page.as_uri()]
        subprocess.run([browser, *words], check=True, capture_output=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
