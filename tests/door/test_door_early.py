"""What can be told to be wrong at once is told before anything heavy is imported."""

import json
import os
import subprocess
import sys

import pytest
from door_tools import mlp_model

HEAVY = ("onnx", "onnx_ir", "numpy", "onnxruntime", "ml_dtypes", "sympy", "rich")
FILES = {
    "notes.onnx": b"",
    "w.pt": b"PK\x03\x04rest",
    "m.gguf": b"GGUF....",
    "m.ort": b"\x18\x00\x00\x00ORTM",
    "lfs.onnx": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "a.npz": b"PK\x03\x04",
}
IN = "mlp.onnx"
# A line of arguments, and what its one line of error says.
CALLS = (
    ("check nope.onnx", "nope.onnx does not exist\n"),
    ("check mlpp.onnx", "mlpp.onnx does not exist; did you mean mlp.onnx?"),
    ("check quite-another.onnx", "quite-another.onnx does not exist\n"),
    ("check mlp", "mlp does not exist; did you mean mlp.onnx?"),
    ("check .", "is a folder; name a file in it: lfs.onnx, mlp.onnx, notes.onnx"),
    ("check notes.onnx", "notes.onnx is empty"),
    ("check /dev/null", "/dev/null is not a regular file"),
    ("check w.pt", "w.pt is a PyTorch file"),
    ("check m.gguf", "m.gguf is a GGUF file"),
    ("check m.ort", "m.ort is in ONNX Runtime's own format"),
    ("check lfs.onnx", "lfs.onnx is a Git LFS pointer, not the model; run git lfs pull"),
    ("check a.npz --json", "a.npz holds arrays but no graph"),
    (f"check {'x' * 300}.onnx", "File name too long"),
    ("check mlp.onnx/x", "Not a directory"),
    ("inspect nope.onnx", "nope.onnx does not exist"),
    (f"inspect {IN} --at n", "--at takes NAME=SIZE"),
    ("verify mlp.onnx nope.onnx", "nope.onnx does not exist"),
    (f"verify {IN} {IN} --inputs no.npz", "no file of inputs 'no.npz'"),
    (f"verify {IN} {IN} --inputs .", ". is no file; give an .npz file"),
    (f"verify {IN} {IN} --optimization al", "did you mean 'all'?"),
    (f"verify {IN} {IN} --emulate floaty", "no element type to emulate 'floaty'"),
    (f"verify {IN} {IN} --memory lots", "'lots' is not a size"),
    ("rules explain undone nope.onnx", "nope.onnx does not exist"),
    (f"rules explain cast-of-casts {IN}", "no rule named 'cast-of-casts'; did you mean cast-of-"),
    ("rules xyzzy", "no rule named 'xyzzy'; `vlmpass rules` lists them"),
    ("opset Conf", "there is no operator 'Conf'; did you mean 'Conv'?"),
    (f"rules explain x {IN} y", "rules explain NAME MODEL"),
    ("demo mlp.onnx", "mlp.onnx is no folder; name one for the models"),
    ("demo mlp.onnx/x/y", "mlp.onnx is no folder"),
    ("passes nope", "there is no pass 'nope'"),
    ("convert nope.onnx --opset 18", "nope.onnx does not exist"),
    (f"convert {IN}", "nothing is asked for"),
    (f"convert {IN} no/out.onnx --simplify", "no does not exist; create it first"),
    (f"convert {IN} . --simplify", ". is a folder; name a file in it: ./model.onnx"),
    (f"convert {IN} out/ --simplify", "out/ is a folder; name a file in it: out/model.onnx"),
    (f"convert {IN} out/. --simplify", "out/. is a folder; name a file in it"),
    (f"convert {IN} {'x' * 300}.onnx --simplify", "File name too long"),
    (f"convert {IN} mlp.onnx/x --simplify", "does not exist"),
    (f"convert {IN} out.safetensors --simplify", "name it out.onnx"),
    (f"convert {IN} out.gguf --simplify", "as if it is a GGUF file; name it out.onnx"),
    (f"convert {IN} --simplify --layout hff", "did you mean 'hf'?"),
    (f"convert {IN} --simplify --weights keep --layout inline", "keeps no data file"),
    (f"convert {IN} --simplify --weights kopy", "did you mean 'copy'?"),
    (f"convert {IN} --simplify --shard-size 2XB", "'2XB' is not a size"),
    (f"convert {IN} --simplify --memory 0", "not a whole number of bytes above zero"),
    (f"convert {IN} --simplify --jobs 0", "invalid value for '--jobs'"),
    (f"convert {IN} --simplify --dump mlp.onnx", "mlp.onnx is no folder"),
    (f"convert {IN} --simplify --no-verify --verify-time 5", "leave one of them out"),
    (f"convert {IN} --dtype floaty", "no element type 'floaty'"),
    (f"convert {IN} --target gpu", "there is no target 'gpu'"),
    (f"convert {IN} --quant x", "no form of a quantised layer 'x'"),
    (f"convert {IN} --fuse x", "no set of operators to fuse to 'x'"),
    (f"convert {IN} --simplify --keep-io", "give a dtype too"),
    (f"convert {IN} --simplify --widen-io", "what an opset or a target has; give one too"),
    (f"convert {IN} --dtype float32 --calibrate random", "calibration is for half precision"),
    (f"convert {IN} --dtype float16 --calibrate no.npz", "no file of inputs 'no.npz'"),
    (f"convert {IN} --passes infer --simplify", "passes say everything"),
    (f"convert {IN} --passes infer,infr", "no pass named 'infr'; did you mean 'infer'?"),
    (f"convert {IN} --passes infer,{{", "vlmpass: error: "),
)
PROGRAM = f"""
import contextlib, io, json, sys
from vlmpass.cli.app import run
told = []
for line in json.loads(sys.argv[1]):
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        code = run(line.split())
    told.append([code, err.getvalue(), [each for each in {HEAVY!r} if each in sys.modules]])
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Every call in one process: what has been imported by one would show in the next."""
    folder = tmp_path_factory.mktemp("early")
    mlp_model(folder, IN)
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([line for line, _ in CALLS])],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(result.stdout)


@pytest.mark.parametrize("number", range(len(CALLS)), ids=[line[:40] for line, _ in CALLS])
def test_wrong_at_once(told, number):
    code, err, heavy = told[number]
    assert code == 2
    assert CALLS[number][1] in err
    assert err.startswith("vlmpass: error: ")
    # A pipeline is shown below, with a caret.
    assert err.count("\n") == (3 if "--passes infer," in CALLS[number][0] else 1)
    assert heavy == []


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read(door, tmp_path):
    path = mlp_model(tmp_path)
    path.chmod(0)
    assert "cannot be read: Permission denied" in door("check", path)[2]
    path.chmod(0o644)
    tmp_path.chmod(0o500)
    try:
        err = door("convert", path, "--simplify")[2]
    finally:
        tmp_path.chmod(0o700)
    assert "cannot be written; choose another output folder" in err
