"""What ONNX Runtime and the reference evaluator make of cases; the former in a child process.

ONNX Runtime may crash on a case: the child then starts anew behind it. Run as
``python -m tests.evaluate.differential.runtimes IN OUT FIRST``, this file is the child.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper
from onnx.reference import ReferenceEvaluator

from tests.evaluate.differential.draw import Case

__all__ = ["Answer", "in_onnxruntime", "in_reference", "model_of"]

_IR = {21: 10, 22: 10, 23: 11, 24: 12}
_FETCHED = frozenset(
    ["FLOAT", "DOUBLE", "FLOAT16", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32",
     "UINT64", "BOOL", "STRING"]
)  # fmt: skip

_NO_KERNEL = (
    "NotImplemented",
    "NOT_IMPLEMENTED",
    "MLDataType for",  # a type that it does not have
    "in node () is invalid",  # a kernel missing for what the operator's function body needs
)


@dataclass
class Answer:
    """What one of them says.

    Attributes:
        outputs: None if there are none.
        reason: "" for outputs, "no kernel", or what it refused the case with.
    """

    outputs: list[np.ndarray] | None
    reason: str = ""

    @property
    def silent(self) -> bool:
        """Whether it knows nothing of such nodes."""
        return self.reason == "no kernel"


def tensor_of(array: np.ndarray, name: str) -> onnx.TensorProto:
    if array.dtype == object:
        text = onnx.TensorProto.STRING
        return helper.make_tensor(name, text, array.shape, array.ravel().tolist())
    return ir.to_proto(ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), name=name))


def model_of(case: Case) -> onnx.ModelProto:
    """Return a model of the one node, all of whose inputs are initializers."""
    names = ["" if x is None else f"x{i}" for i, x in enumerate(case.inputs)]
    tensors = [tensor_of(x, n) for x, n in zip(case.inputs, names, strict=True) if x is not None]
    outputs = [f"y{i}" for i in range(case.outputs)]
    node = helper.make_node(case.op_type, names, outputs, name="node")
    for key, value in case.attributes.items():
        kind = onnx.AttributeProto.INTS if value == [] else None
        node.attribute.append(helper.make_attribute(key, value, attr_type=kind))
    infos = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph([node], "g", [], infos, tensors)
    version = _IR.get(case.opset, 9)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=version
    )


def in_reference(model: onnx.ModelProto) -> Answer:
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            outputs = ReferenceEvaluator(model).run(None, {})
    except Exception as error:  # noqa: BLE001 - numpy and onnx raise anything
        return Answer(None, f"{type(error).__name__}: {error}"[:200])
    return Answer([np.asarray(output) for output in outputs])


def in_onnxruntime(models: Sequence[onnx.ModelProto]) -> list[Answer]:
    """Run every model in a child; what kills it is an answer too."""
    answers: list[Answer] = []
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder, "models"), Path(folder, "answers")
        given.write_bytes(pickle.dumps([model.SerializeToString() for model in models]))
        while len(answers) < len(models):
            command = [sys.executable, "-m", __name__, str(given), str(found), str(len(answers))]
            done = subprocess.run(command, check=False, capture_output=True, timeout=900)
            with found.open("rb") as stream:
                while True:
                    try:
                        answers.append(Answer(*pickle.load(stream)))
                    except EOFError:
                        break
            if len(answers) < len(models):
                answers.append(Answer(None, f"died with {done.returncode}"))
    return answers


def _run(model: bytes) -> Answer:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = ort.InferenceSession(_fetchable(model, ort), options)
        return Answer([np.asarray(output) for output in session.run(None, {})])
    except Exception as error:  # noqa: BLE001 - the runtime's errors have no common class
        text = f"{type(error).__name__}: {error}"
        silent = any(words in text for words in _NO_KERNEL)
        return Answer(None, "no kernel" if silent else text[:900])


def _fetchable(model: bytes, ort) -> bytes:
    """Cast outputs that Python cannot fetch to float32, which holds each of their values."""
    proto = onnx.load_model_from_string(model)
    try:
        inferred = onnx.shape_inference.infer_shapes(proto)
    except onnx.shape_inference.InferenceError:
        return model
    for info, found in zip(proto.graph.output, inferred.graph.output, strict=True):
        kind = onnx.TensorProto.DataType.Name(found.type.tensor_type.elem_type)
        if kind in _FETCHED or kind == "UNDEFINED" or kind.startswith("COMPLEX"):
            continue
        node = helper.make_node("Cast", [info.name], [f"{info.name}_wide"], to=1)
        proto.graph.node.append(node)
        info.name = f"{info.name}_wide"
    return proto.SerializeToString()


def _child(given: str, found: str, first: int) -> None:
    import onnxruntime as ort

    ort.set_default_logger_severity(4)
    models = pickle.loads(Path(given).read_bytes())
    with Path(found).open("wb") as stream:
        for model in models[first:]:
            answer = _run(model)
            pickle.dump((answer.outputs, answer.reason), stream)
            stream.flush()


if __name__ == "__main__":
    _child(sys.argv[1], sys.argv[2], int(sys.argv[3]))
