"""onnx's C++ runs in a child with limits; what it cannot finish is a finding that says so."""

from __future__ import annotations

import os
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from vlmpass.ir_tools.errors import CheckError
from vlmpass.ir_tools.worker import bounded, native
from vlmpass.ir_tools.worker.bounded import NativeError, check_model, infer_shapes, parse_text

OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
X = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])


def model(nodes, functions=(), inputs=(X,)):
    graph = helper.make_graph(nodes, "g", inputs, [Y])
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=9, functions=functions)


def relu():
    return model([helper.make_node("Relu", ["x"], ["y"])])


def doubling(depth):
    """Return a model whose functions call the next one twice each."""
    functions = []
    for level in range(depth):
        last = level == depth - 1
        name, domain = ("Relu", "") if last else (f"F{level + 1}", "local")
        nodes = [
            helper.make_node(name, [a], [b], domain=domain) for a, b in (("x", "a"), ("a", "y"))
        ]
        functions.append(helper.make_function("local", f"F{level}", ["x"], ["y"], nodes, OPSETS))
    return model([helper.make_node("F0", ["x"], ["y"], domain="local")], functions)


def huge_split():
    return model([helper.make_node("Split", ["x"], ["y"], num_outputs=1 << 30, axis=0)])


@pytest.fixture
def child(monkeypatch):
    """A child of this test's own."""
    own = bounded._Child()
    monkeypatch.setattr(bounded, "_CHILD", own)
    yield own
    own.stop()


def test_it_checks_infers_and_parses(tmp_path, child):
    path = tmp_path / "m.onnx"
    onnx.save(relu(), path)
    check_model(path)
    assert onnx.ModelProto.FromString(infer_shapes(relu().SerializeToString())).graph.node
    text = onnx.printer.to_text(relu())
    assert onnx.ModelProto.FromString(parse_text(text)).graph.node[0].op_type == "Relu"
    started = child._process
    check_model(path)
    assert child._process is started


def test_what_onnx_says_comes_back(tmp_path, child):
    path = tmp_path / "m.onnx"
    onnx.save(model([helper.make_node("Nonsense", ["x"], ["y"])]), path)
    with pytest.raises(NativeError, match="No Op registered for Nonsense"):
        check_model(path)
    with pytest.raises(NativeError):
        parse_text("<ir_version: ")


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_functions_that_multiply_end_with_the_limit_of_time(monkeypatch, child):
    monkeypatch.setattr(bounded, "_SECONDS", 1)
    with pytest.raises(CheckError, match=r"did not finish within 1 s and .* longer"):
        infer_shapes(doubling(30).SerializeToString())
    assert infer_shapes(relu().SerializeToString())  # by a new child


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps the limit of memory")
def test_sizes_that_are_corrupt_end_with_the_limit_of_memory(child):
    with pytest.raises(CheckError, match=r"within 10 s and 512 MB \(wanted more memory\)"):
        infer_shapes(huge_split().SerializeToString())
    assert infer_shapes(relu().SerializeToString())


def test_a_crash_is_a_finding(monkeypatch, tmp_path, child):
    program = tmp_path / "crash.py"
    program.write_text("import os; input(); os.abort()")
    monkeypatch.setattr(native, "__file__", str(program))
    with pytest.raises(CheckError, match=r"did not finish .*ended with"):
        infer_shapes(relu().SerializeToString())


def test_an_interrupted_request_leaves_no_answer_for_the_next(monkeypatch, child):
    def interrupted(self, request, seconds):
        process = self._running()
        process.stdin.write('{"do": "parse"}\n')
        process.stdin.flush()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bounded._Child, "_exchange", interrupted)
        with pytest.raises(KeyboardInterrupt):
            infer_shapes(relu().SerializeToString())
    assert infer_shapes(relu().SerializeToString())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork of POSIX")
def test_a_forked_process_starts_its_own(child):
    assert infer_shapes(relu().SerializeToString())
    pid = os.fork()
    if pid == 0:
        try:
            good = bool(infer_shapes(relu().SerializeToString()))
            child.stop()
        finally:
            os._exit(0 if good else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert infer_shapes(relu().SerializeToString())


def test_large_models_do_not_leave_a_large_child(child):
    big = relu()
    big.graph.initializer.append(
        onnx.numpy_helper.from_array(np.zeros(2_000_000, np.float32), "unused")
    )
    assert infer_shapes(big.SerializeToString())
    assert child._process is None
