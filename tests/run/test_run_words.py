"""What ONNX Runtime says, in words that its users can use: no places in its source, no folders."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from vlmpass.ir_tools.run.words import said

ort = pytest.importorskip("onnxruntime")
FAULTS = [
    json.loads(line)
    for line in (Path(__file__).parent / "runtime_faults.jsonl").read_text().splitlines()
]
"""Models that do not load, and models that do not run on what they are fed."""

FORBIDDEN = (".cc", ".h:", "onnxruntime::", "std::", "/onnxruntime", "[ONNXRuntimeError]", "/tmp")
CODES = ("FAIL: ", "INVALID_ARGUMENT: ", "INVALID_GRAPH: ", "NOT_IMPLEMENTED: ", "Required inputs")


def raised(text, feed):
    """What ONNX Runtime raises for a model; None if it does not."""
    data = onnx.parser.parse_model(text).SerializeToString()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        if feed is not None:
            session.run(None, feed)
    except Exception as error:  # noqa: BLE001 - its errors have no common class
        return str(error)
    return None


def messages():
    """What is raised, by name."""
    for fault in FAULTS:
        feed = (
            {name: np.array(v, dtype) for name, (dtype, v) in fault["feed"].items()}
            if ("feed" in fault)
            else None
        )
        message = raised(fault["model"], feed)
        if message is not None:
            yield fault["name"], message


MESSAGES = dict(messages())


def test_many_kinds_of_messages_are_tried():
    assert len(MESSAGES) >= 50
    places = [each for each in MESSAGES.values() if ".cc:" in each or ".h:" in each]
    assert len(places) >= 10


@pytest.mark.parametrize("name", MESSAGES)
def test_no_places_in_the_source(name):
    line = said(MESSAGES[name])
    assert line.startswith(CODES)
    assert not [each for each in FORBIDDEN if each in line], line
    assert "\n" not in line
    assert len(line) > 30
    assert said(line) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "no reason given"),
        ("plain words", "plain words"),
        (
            r"[ONNXRuntimeError] : 1 : FAIL : D:\a\_work\1\s\onnxruntime\core\op_kernel.cc:83"
            r" onnxruntime::OpKernelContext::OutputMLValue ok[0] == (n) was false. No room",
            "FAIL: No room",
        ),
        (
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: "
            "/onnxruntime_src/onnxruntime/core/graph/x.cc:7 static std::vector<int> "
            "onnxruntime::X<T>::F(const std::map<int, std::pair<int, int>>&, int) const "
            "[with T = float] a[i] == (b) was false. Sizes differ (2 of 3)",
            "RUNTIME_EXCEPTION: Exception during initialization: Sizes differ (2 of 3)",
        ),
        (
            "/a/b.h:12 auto onnxruntime::F(int)::<lambda(int)>::operator()(int) const It fails",
            "It fails",
        ),
        ("x.cc:3 Compute It (really) fails", "It (really) fails"),
        ("see notes.h: it says so", "see notes.h: it says so"),
        (
            "Load fails for /tmp/vlmpass-run-a1b2/model.onnx: no '/tmp/vlmpass-run-a1b2/w.data'",
            "Load fails for the model: no 'the model'",
        ),
    ],
)
def test_messages_of_other_builds(text, line):
    assert said(text) == line


@pytest.mark.parametrize("letters", ["a" * 10**6, "a/" * 10**5, "(" * 10**5, "ns::f" * 10**5])
def test_names_without_end_are_cut(letters: str) -> None:
    """A pattern that takes the square of a word's length would not come to an end here."""
    text = f"[ONNXRuntimeError] : 10 : INVALID_GRAPH : {letters} is not a registered op {letters}"
    assert len(said(text)) <= 400


def test_openvino_says_what_it_has_no_conversion_for():
    text = (
        "Exception from src/inference/src/cpp/core.cpp:84:\nCheck 'false' failed at"
        " src/frontends/common_translators/src/unconverted_ops_report.cpp:151:\nFrontEnd API failed"
        " with OpConversionFailure:\nModel wasn't fully converted.\nSummary:\n-- No conversion rule"
        " found for operations: com.acme.Twice\n\n"
    )
    assert said(text) == (
        "Model wasn't fully converted. -- No conversion rule found for operations: com.acme.Twice"
    )
