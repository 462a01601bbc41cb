"""What a shell is told when it asks for words."""

import os
import shutil
import subprocess
import sys

import pytest

ASKED = [
    ("con", "convert"),
    ("convert in.onnx --dry", "--dry-run"),
    ("convert in.onnx --target tensorrt-1", "tensorrt-10.15 tensorrt-11"),
    ("convert in.onnx --layout s", "single safetensors"),
    ("convert in.onnx --weights k", "keep"),
    ("convert in.onnx --dtype f", "float32 float16"),
    ("check in.onnx --target q", "qnn"),
    ("passes quantize-w", "quantize-weights"),
    ("targets open", "openvino"),
    ("rules cast-of", "cast-of-cast"),
    ("opset LayerN", "LayerNormalization"),
    ("convert in", ""),
    ("convert in.onnx --passes infer,quantize-w", "infer,quantize-weights"),
    ("bisect in.onnx --passes infer,fol", "infer,fold"),
    ("convert in.onnx --passes convert-opset{t", "convert-opset{to="),
    ("convert in.onnx --passes infer,convert-opset{to=18},fol", "infer,convert-opset{to=18},fold"),
    ("convert in.onnx --passes name-dims{x", ""),
    ("convert in.onnx --passes none{x", ""),
]


def asked(line, monkeypatch, capsys):
    from vlmpass.cli.app import run

    words = f"vlmpass {line}"
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    monkeypatch.setenv("_VLMPASS_COMPLETE", "complete_bash")
    assert run() == 0
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(("line", "words"), ASKED)
def test_words_are_completed(line, words, monkeypatch, capsys):
    assert asked(line, monkeypatch, capsys) == words.split()


def test_options_that_are_given_are_not_offered_again():
    from vlmpass.cli.completing import pipelines

    assert "quantize-weights{bits=4 form=" in pipelines("quantize-weights{bits=4 ")
    assert not any("bits=4 bits" in each for each in pipelines("quantize-weights{bits=4 "))
    assert pipelines("quantize-weights{bits=4 for") == ["quantize-weights{bits=4 form="]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes(tmp_path):
    """The script that is shown, in a shell that knows the command by a file of its name."""
    command = tmp_path / "vlmpass"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vlmpass "$@"\n')
    command.chmod(0o755)
    script = (
        'eval "$(vlmpass --show-completion)"\n'
        "COMP_WORDS=(vlmpass convert in.onnx --target ort-cp) COMP_CWORD=4\n"
        '_vlmpass_completion vlmpass; echo "${COMPREPLY[@]}"\n'
    )
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    made = subprocess.run(
        ["bash", "-c", script],
        check=False,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert made.stdout.strip() == "ort-cpu", made.stderr
