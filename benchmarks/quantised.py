"""Weights of few bits beside those of ONNX Runtime's quantizers at the same settings.

    python benchmarks/quantised.py                     # a decoder that it makes
    python benchmarks/quantised.py MODEL --page docs/quantising.md  # and others

Both get the same file. Errors are of the outputs against the float model, on ONNX Runtime, over the
same inputs: the root of the mean square of the difference, by that of the float output. ONNX
Runtime's `quantize_dynamic` rounds activations too, so that of it the weights alone are compared:
what it stores is put back into floats.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from decoder import Config, make
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization import matmul_nbits_quantizer as nbits

import vlmpass

CALIBRATED = (100, (16,) * 8)
"""The first seed and the lengths of the inputs that ranges are measured with; ONNX Runtime's
histograms take those of one length alone."""
Arrays = list[np.ndarray]


@dataclass(frozen=True)
class Setting:
    """A way to round: of ours the passes, of theirs what makes a model of a file."""

    name: str
    passes: str
    theirs: dict[str, Callable[[Path], onnx.ModelProto]]


def blockwise(symmetric: bool, bits: int = 4) -> Callable[[Path], onnx.ModelProto]:
    def made(path: Path) -> onnx.ModelProto:
        config = nbits.DefaultWeightOnlyQuantConfig(
            block_size=32, is_symmetric=symmetric, bits=bits
        )
        quantizer = nbits.MatMulNBitsQuantizer(onnx.load(path), algo_config=config)
        quantizer.process()
        return quantizer.model.model

    return made


def gptq(symmetric: bool) -> Callable[[Path], onnx.ModelProto]:
    def made(path: Path) -> onnx.ModelProto:
        config = nbits.GPTQWeightOnlyQuantConfig(Reader(path.parent / "calibrate"))
        quantizer = nbits.MatMulNBitsQuantizer(
            onnx.load(path), block_size=32, is_symmetric=symmetric, algo_config=config
        )
        with contextlib.redirect_stdout(None):  # its progress
            quantizer.process()
        return quantizer.model.model

    return made


def hqq(path: Path) -> onnx.ModelProto:
    config = nbits.HQQWeightOnlyQuantConfig(block_size=32, bits=4)
    quantizer = nbits.MatMulNBitsQuantizer(
        onnx.load(path), block_size=32, is_symmetric=False, algo_config=config
    )
    quantizer.process()
    return quantizer.model.model


def dynamic(path: Path) -> onnx.ModelProto:
    """Return the float model with the weights that `quantize_dynamic` has left of them."""
    made = path.with_name("dynamic.onnx")
    quantize_dynamic(
        path, made, ["MatMul"], per_channel=True, weight_type=QuantType.QInt8,
        extra_options={"WeightSymmetric": True},
    )  # fmt: skip
    held = {x.name: numpy_helper.to_array(x) for x in onnx.load(made).graph.initializer}
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        numbers = held.get(f"{tensor.name}_quantized")
        if numbers is not None:
            zero = held[f"{tensor.name}_zero_point"].astype(np.float32)
            floats = (numbers.astype(np.float32) - zero) * held[f"{tensor.name}_scale"]
            tensor.CopyFrom(numpy_helper.from_array(floats.astype(np.float32), tensor.name))
    return model


class Reader(CalibrationDataReader):
    """The files of a folder, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.files = iter(sorted(folder.glob("*.npz")))

    def get_next(self) -> dict[str, np.ndarray] | None:
        path = next(self.files, None)
        return None if path is None else dict(np.load(path))


def static(method: CalibrationMethod, *, symmetric: bool) -> Callable[[Path], onnx.ModelProto]:
    """Return what rounds inputs and weights of products as quantize-static does."""

    def made(path: Path) -> onnx.ModelProto:
        target = path.with_name("static.onnx")
        kind = QuantType.QInt8 if symmetric else QuantType.QUInt8
        quantize_static(
            path, target, Reader(path.parent / "calibrate"), QuantFormat.QDQ,
            ["MatMul", "Gemm", "Conv"], per_channel=True, activation_type=kind,
            weight_type=QuantType.QInt8, calibrate_method=method,
            extra_options={"MatMulConstBOnly": True, "ActivationSymmetric": symmetric},
        )  # fmt: skip
        return onnx.load(target)

    return made


PASS = "quantize-weights{{at-least=1 {}}}"
SETTINGS = (
    Setting(
        "8 bits, one scale for each output",
        PASS.format('bits=8 exclude=["[Cc]onv"]'),
        {"quantize_dynamic": dynamic},
    ),
    Setting(
        "4 bits, blocks of 32, symmetric",
        PASS.format("bits=4 form=matmul-nbits"),
        {"default": blockwise(symmetric=True)},
    ),
    Setting(
        "4 bits, blocks of 32, with zero points",
        PASS.format("bits=4 form=matmul-nbits symmetric=false"),
        {"default": blockwise(symmetric=False)},
    ),
    Setting(
        "4 bits, blocks of 32, float zero points",
        PASS.format("bits=4 form=matmul-nbits symmetric=false algorithm=hqq"),
        {"HQQ": hqq},
    ),
    Setting(
        "4 bits, blocks of 32, symmetric, gptq",
        PASS.format("bits=4 form=matmul-nbits algorithm=gptq calibrate=CALIBRATE"),
        {"GPTQ": gptq(symmetric=True)},
    ),
    Setting(
        "4 bits, blocks of 32, with zero points, gptq",
        PASS.format("bits=4 form=matmul-nbits symmetric=false algorithm=gptq calibrate=CALIBRATE"),
        {"GPTQ": gptq(symmetric=False)},
    ),
    *(
        Setting(
            f"8 bits with inputs, {method}, {kind}",
            f"quantize-static{{calibrate=CALIBRATE at-least=1 method={method} target={target}}}",
            {"quantize_static": static(calibrate, symmetric=target != "ort-cpu")},
        )
        for method, calibrate in (
            ("min-max", CalibrationMethod.MinMax),
            ("percentile", CalibrationMethod.Percentile),
            ("entropy", CalibrationMethod.Entropy),
        )
        for kind, target in (("uint8", "ort-cpu"), ("int8", "tensorrt-10.15"))
    ),
)


def feeds(
    session: onnxruntime.InferenceSession, first: int = 0, lengths: tuple[int, ...] = (7, 16, 33)
) -> Iterator[dict[str, np.ndarray]]:
    """Yield inputs of some lengths, seeded."""
    for seed, length in enumerate(lengths, first):
        rng = np.random.default_rng(seed)
        fed = {}
        for each in session.get_inputs():
            shape = [
                length if isinstance(n, str) and re.search("seq|len|s$", n) else n
                for n in each.shape
            ]
            shape = [n if isinstance(n, int) else 1 for n in shape]
            if "mask" in each.name:
                fed[each.name] = np.ones(shape, np.int64)
            elif "position" in each.name:
                fed[each.name] = np.broadcast_to(np.arange(shape[-1]), shape).copy()
            elif "int64" in each.type:
                fed[each.name] = rng.integers(0, 96, shape)
            else:
                fed[each.name] = rng.standard_normal(shape).astype(np.float32)
        yield fed


def outputs(path: Path, fed: list[dict[str, np.ndarray]] | None = None) -> tuple[Arrays, list]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    fed = list(feeds(session)) if fed is None else fed
    return [session.run(None, each)[0].ravel() for each in fed], fed


def error(wanted: Arrays, found: Arrays) -> float:
    both = np.concatenate(wanted), np.concatenate(found)
    return float(np.sqrt(np.mean((both[0] - both[1]) ** 2) / np.mean(both[0] ** 2)))


def measured(source: Path, folder: Path) -> Iterator[str]:
    """Yield the rows of the table."""
    wanted, fed = outputs(source)
    calibrate = source.parent / "calibrate"
    calibrate.mkdir(exist_ok=True)
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    for number, each in enumerate(feeds(session, *CALIBRATED)):
        np.savez(calibrate / f"{number}.npz", **each)
    for setting in SETTINGS:
        ours = folder / "ours.onnx"
        passes = setting.passes.replace("CALIBRATE", f'"{calibrate}"')
        vlmpass.Pipeline(passes).convert(source, ours, layout="inline", verify=False)
        mine, size = error(wanted, outputs(ours, fed)[0]), ours.stat().st_size
        for name, quantize in setting.theirs.items():
            theirs = folder / "theirs.onnx"
            head = f"| {source.stem} | {setting.name} | {name} | {mine:.2e} |"
            try:
                onnx.save(quantize(source), theirs)
            except ValueError:  # GPTQ's zero points of weights of one block
                yield f"{head} raises an error | {size:,} | |"
                continue
            other = theirs if quantize is not dynamic else folder / "in" / "dynamic.onnx"
            far = error(wanted, outputs(theirs, fed)[0])
            yield f"{head} {far:.2e} | {size:,} | {other.stat().st_size:,} |"


COLUMNS = (
    "model", "setting", "theirs", "error, vlmpass", "error, theirs", "bytes, vlmpass",
    "bytes, theirs",
)  # fmt: skip
HEAD = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    rows = [HEAD]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        made = folder / "decoder.onnx"
        make(made, Config())
        for model in (made, *given.models):
            source = folder / "in" / model.name
            vlmpass.Pipeline(opset=21).convert(model, source, layout="inline", verify=False)
            for row in measured(source, folder):
                print(row, flush=True)
                rows.append(row)
    if given.page is not None:
        start, rest = given.page.read_text("utf-8").split("<!-- table -->\n", 1)
        end = rest.partition("<!-- end -->\n")[2]
        table = "\n".join(rows)
        given.page.write_text(f"{start}<!-- table -->\n{table}\n<!-- end -->\n{end}", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
