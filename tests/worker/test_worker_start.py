"""Every comparison starts a process that runs models: it imports little before it is asked."""

import subprocess
import sys


def test_worker_imports_nothing_that_only_the_parent_needs():
    heavy = {"onnx", "onnx_ir", "onnxruntime", "openvino", "iree", "sympy", "rich"}
    program = f"import sys, vlmpass.ir_tools.worker.serve; print({heavy!r} & {{*sys.modules}})"
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == "set()"
