"""Export families, convert each export in every way, and hold the results to PyTorch's numbers.

    PYTHONPATH=tests python -m tests.architectures.sweep export FOLDER [NAMES]
    PYTHONPATH=tests python -m tests.architectures.sweep convert FOLDER [NAMES] --share 4 --seed 1
    PYTHONPATH=tests python -m tests.architectures.sweep table FOLDER

Exports by both exporters and in bfloat16, and what PyTorch computes at two sizes of every open
axis, go into the folder; so does a line of JSON for each conversion. With a share of N, one of N
ways is taken of each export, drawn by the seed.

Needs the `torch` extra, transformers and timm.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from attention.exporting import bare

from vlmpass import Pipeline, VlmpassError, compose, extract, split

SECONDS = 100
KINDS = ("ts", "dyn", "bf16")
WAYS: dict[str, dict[str, Any]] = {
    **{f"opset {n}": {"opset": n} for n in (13, 15, 17, 21, 23, 24)},
    "simplify": {"simplify": True},
    "simplify, fuse standard, opset 23": {"simplify": True, "fuse": "standard", "opset": 23},
    "simplify, fuse ort": {"simplify": True, "fuse": "ort"},
    "fuse ort": {"fuse": "ort"},
    "float16": {"dtype": "float16"},
    "float16, keep io": {"dtype": "float16", "keep_io": True, "simplify": True},
    "float32": {"dtype": "float32"},
    "float32, opset 17": {"dtype": "float32", "opset": 17},
    "ort-cpu": {"target": "ort-cpu"},
    "openvino": {"target": "openvino"},
    "tensorrt": {"target": "tensorrt-10.15"},
    "standard": {"target": "onnx-standard"},
    "int8": {"quantize": "int8"},
    "int4": {"quantize": "int4"},
    "fuse, unfuse": {"passes": "infer,simplify,fuse{emit=ort},unfuse{to=standard}"},
    "verified": {"simplify": True, "opset": 21},
    "split": {},
    "extract": {},
}
"""What is asked for; all but `verified` are compared here alone, with what PyTorch computes."""


class Slow(BaseException):
    """It took longer than it may."""


def _alarm(*_: object) -> None:
    raise Slow


# -- exports ---------------------------------------------------------------------------------


def export(family: Any, kind: str, path: Path) -> None:
    """Write a model by an exporter, and what PyTorch computes at both sizes beside it."""
    import torch
    from architectures.making import Tensors

    made = family.make()
    sizes = [family.inputs(size) for size in (0, 1)]
    if kind == "bf16":
        made = made.bfloat16()
        sizes = [
            {k: v.bfloat16() if v.is_floating_point() else v for k, v in given.items()}
            for given in sizes
        ]
    names = list(sizes[0])
    module = Tensors(made, names).eval()
    arrays = {}
    with torch.no_grad():
        for size, given in enumerate(sizes):
            results = module(*given.values())
            outputs = [f"out{each}" for each in range(len(results))]
            for prefix, values in (
                ("in", given),
                ("out", dict(zip(outputs, results, strict=True))),
            ):
                for name, value in values.items():
                    value = value.float() if value.is_floating_point() else value
                    arrays[f"{size}:{prefix}:{name}"] = value.numpy()
        dims = {name: family.dims.get(name, {}) for name in names}
        given = tuple(sizes[0].values())
        if kind == "ts":
            torch.onnx.export(
                module, given, str(path), dynamo=False, opset_version=17,
                input_names=names, output_names=outputs, dynamic_axes=dims,
            )  # fmt: skip
        else:
            shapes = tuple(dict.fromkeys(dims[name], torch.export.Dim.DYNAMIC) for name in names)
            program = torch.onnx.export(
                module, given, dynamo=True, opset_version=18, verbose=False,
                input_names=names, output_names=outputs, dynamic_shapes=(shapes,),
            )  # fmt: skip
            program.save(str(path), external_data=False)
    if kind == "ts":
        bare(path)
    np.savez(path.with_suffix(".npz"), **arrays)


def exports(folder: Path, names: list[str], kinds: list[str]) -> None:
    """Export what is named, or all."""
    import torch
    from architectures.families import FAMILIES

    torch.set_num_threads(1)
    for name, family in FAMILIES.items():
        for kind in kinds:
            path = folder / f"{name}.{kind}.onnx"
            if (names and name not in names) or path.with_suffix(".npz").exists():
                continue
            start = time.monotonic()
            signal.alarm(SECONDS)
            try:
                with contextlib.redirect_stdout(sys.stderr):  # exporters print graphs
                    export(family, kind, path)
                told = "ok"
            except (Exception, Slow) as error:  # noqa: BLE001
                path.unlink(missing_ok=True)
                told = f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}"[:300]
            signal.alarm(0)
            print(path.stem, told, f"{time.monotonic() - start:.0f} s", flush=True)


# -- numbers ---------------------------------------------------------------------------------


def _given(path: Path) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    arrays = np.load(path.with_suffix(".npz"))
    return [
        tuple(
            {k.split(":", 2)[2]: arrays[k] for k in arrays.files if k.startswith(f"{size}:{part}:")}
            for part in ("in", "out")
        )
        for size in (0, 1)
    ]


def error_of(path: Path, feeds: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> float:
    """Return the largest difference between ONNX Runtime and what is wanted, relative."""
    import ml_dtypes

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    types = {"tensor(float16)": np.float16, "tensor(bfloat16)": ml_dtypes.bfloat16,
             "tensor(int32)": np.int32, "tensor(float)": np.float32}  # fmt: skip
    given = {}
    for each in session.get_inputs():
        value = feeds[each.name].astype(types.get(each.type, feeds[each.name].dtype))
        if each.type == "tensor(bfloat16)":
            value = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
                value.view(np.uint16), onnx.TensorProto.BFLOAT16
            )
        else:
            value = onnxruntime.OrtValue.ortvalue_from_numpy(value)
        given[each.name] = value
    got = session.run_with_ort_values([each.name for each in session.get_outputs()], given)
    worst = 0.0
    for (name, one), two in zip(wanted.items(), got, strict=True):
        value = two.numpy()
        if value.dtype == np.uint16:
            value = value.view(ml_dtypes.bfloat16)
        if tuple(value.shape) != one.shape:
            raise ValueError(f"{name}: shape {value.shape}, PyTorch's {one.shape}")
        off = np.abs(value.astype(np.float64) - one)
        if np.isnan(off).any() and np.isfinite(one).all():
            return float("inf")
        worst = max(
            worst,
            float(np.nan_to_num(off).max(initial=0)) / max(1.0, float(np.abs(one).max(initial=0))),
        )
    return worst


def errors(path: Path, source: Path) -> list[Any]:
    """Return the error at each size, or why there is none."""
    found: list[Any] = []
    for feeds, wanted in _given(source):
        try:
            found.append(error_of(path, feeds, wanted))
        except Exception as error:  # noqa: BLE001
            found.append(f"{type(error).__name__}: {str(error)[:300]}")
    return found


# -- conversions -----------------------------------------------------------------------------


def _convert(way: str, source: Path, folder: Path) -> dict[str, Any]:
    out = folder / "out.onnx"
    if way == "split":
        parts = folder / "parts"
        split(source, parts, budget=60_000)
        compose(parts, out)
    elif way == "extract":
        graph = onnx.load(str(source), load_external_data=False).graph
        extract(source, out, outputs=[each.name for each in graph.output])
    else:
        verify = way == "verified"
        Pipeline(**WAYS[way]).convert(source, out, verify=verify)
    nodes = len(onnx.load(str(out), load_external_data=False).graph.node)
    found: dict[str, Any] = {"errors": errors(out, source), "nodes": nodes}
    if way not in ("split", "extract"):
        again = folder / "again.onnx"
        Pipeline(**WAYS[way]).convert(out, again, verify=False)
        found["again"] = out.read_bytes() == again.read_bytes() or _same(out, again)
    return found


def _same(one: Path, two: Path) -> bool:
    texts = [
        json.dumps(
            [
                [n.op_type, n.domain, list(n.input), list(n.output), str(n.attribute)]
                for n in onnx.load(str(each), load_external_data=False).graph.node
            ]
        )
        for each in (one, two)
    ]
    return texts[0] == texts[1]


def attempt(way: str, source: Path, folder: Path) -> dict[str, Any]:
    """Return what comes of one conversion."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    start = time.monotonic()
    signal.alarm(SECONDS)
    try:
        found = _convert(way, source, folder)
    except VlmpassError as error:
        cause = error.__cause__
        found = {"refused": str(error)[:1500], "cause": type(cause).__name__ if cause else ""}
    except Slow:
        found = {"slow": SECONDS, "where": traceback.format_exc()[-1500:]}
    except Exception as error:  # noqa: BLE001
        found = {
            "raised": f"{type(error).__name__}: {error}"[:600],
            "where": traceback.format_exc()[-1500:],
        }
    signal.alarm(0)
    return {**found, "seconds": round(time.monotonic() - start, 1)}


def conversions(folder: Path, names: list[str], ways: list[str], share: int, seed: int) -> None:
    """Convert exports, a line of JSON each; what is there already is left."""
    log = folder / "results.jsonl"
    done = {
        (each["source"], each["way"])
        for each in map(json.loads, log.read_text().splitlines() if log.exists() else [])
    }
    for source in sorted(folder.glob("*.onnx")):
        if names and source.stem.rsplit(".", 1)[0] not in names:
            continue
        draw = random.Random(f"{seed}:{source.stem}")
        picked = [way for way in ways if draw.randrange(share) == 0]
        if (source.stem, "source") not in done:
            graph = onnx.load(str(source)).graph
            line = {"errors": errors(source, source), "nodes": len(graph.node)}
            _tell(log, source, "source", line)
        for way in picked:
            if (source.stem, way) not in done:
                _tell(log, source, way, attempt(way, source, folder / "work"))


def table(folder: Path) -> None:
    """Print a row for each family, a column for each way: errors, refusals, what changes again."""
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    sources = {each["source"]: each["errors"] for each in lines if each["way"] == "source"}
    cells: dict[tuple[str, str], list[str]] = {}
    for each in lines:
        family = each["source"].rsplit(".", 1)[0]
        cells.setdefault((family, each["way"]), []).append(_cell(each, sources[each["source"]]))
    columns = ["source", *(way for way in WAYS if any(key[1] == way for key in cells))]
    print(f"| family | {' | '.join(columns)} |\n{'|---' * (len(columns) + 1)}|")
    for family in sorted({key[0] for key in cells}):
        row = ("; ".join(sorted(set(cells.get((family, way), [])))) for way in columns)
        print(f"| {family} | {' | '.join(row)} |")


def _cell(found: dict[str, Any], source: list[Any]) -> str:
    """Return the largest error at the sizes at which the source runs, or what came instead."""
    kind = found["source"].rsplit(".", 1)[1]
    instead = next((key for key in ("refused", "raised", "slow") if key in found), None)
    if instead is not None:
        return f"{kind} {instead}"
    sizes = [(mine, its) for mine, its in zip(found["errors"], source, strict=True)]
    if found["way"] == "source" or any(isinstance(its, str) for _, its in sizes):
        sizes = [(mine, mine) for mine, _ in sizes]
    run = [mine for mine, _ in sizes if not isinstance(mine, str)]
    told = f"{max(run):.0e}" if run else "not run"
    told += "" if len(run) in (0, len(sizes)) else ", one size not run"
    return f"{kind} {told}" + (", changes again" if found.get("again") is False else "")


def _tell(log: Path, source: Path, way: str, found: dict[str, Any]) -> None:
    with log.open("a") as file:
        file.write(json.dumps({"source": source.stem, "way": way, **found}) + "\n")
    print(source.stem, way, json.dumps(found)[:160], flush=True)


def main() -> None:
    """Do what is said."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("export", "convert", "table"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--ways", default=";".join(WAYS))
    parser.add_argument("--share", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _alarm)
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.verb == "export":
        exports(given.folder, given.names, given.kinds.split(","))
    elif given.verb == "table":
        table(given.folder)
    else:
        conversions(given.folder, given.names, given.ways.split(";"), given.share, given.seed)


if __name__ == "__main__":
    main()
