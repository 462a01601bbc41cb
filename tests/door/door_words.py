"""What command lines drawn at random are made of: what verbs take, and what they refuse."""

from __future__ import annotations

__all__ = [
    "BAD",
    "BAD_OUTS",
    "BAD_PIPELINES",
    "ENCODINGS",
    "FAULTY",
    "FOLDERS",
    "GOOD",
    "HOSTILE",
    "MODELS",
    "NAMES",
    "OUTS",
    "PIPELINES",
]

MODELS = ("mlp.onnx", "one.onnx", "gelu.onnx", "half.onnx", "./one.onnx", "d/ü →.onnx", "m.json")
FAULTY = (
    "invalid.onnx", "cyclic.onnx", "custom.onnx", "cut.onnx", "notes.onnx", "empty.onnx",
    "lost.onnx", "pointer.onnx", "w.pt", "in.npz", "nope.onnx", "mlq.onnx", ".", "d", "d/nope/x",
    "mlp.onnx/x", "-", "", "x" * 300, "a\nb", "\x1b[31m.onnx", "mlp.onnx.data", "/dev/null",
    "no \0",
)  # fmt: skip
OUTS = ("o.onnx", "d/o.onnx", "o.json", "o.onnxtxt", "ö →.onnx", "noext", "one.onnx")
BAD_OUTS = (
    "no/o.onnx",
    "d",
    ".",
    "mlp.onnx/o",
    "o.safetensors",
    "notes.onnx",
    "y" * 300,
    "a\0b",
    "",
)
FOLDERS = ("parts", "d", ".", "d/deep/parts", "one.onnx", "one.onnx/x", "\N{SNOWMAN}", "-", "")
PIPELINES = (
    "infer", "infer,fold", "simplify", "convert-opset{to=18}", "set-dims{n=3}", "fuse{emit=ort}",
    "name-dims{x:0=batch}", "cse,remove-unused", "unify-dtype{to=float16 keep-io=true}",
    "inline-functions,topological-sort,fix-names", "split-tensor{limit=4KB}", "quant-linear",
    "dead-branches,trim-outputs,unfuse", "restamp", "repair-types,mixed-precision{to=float16}",
)  # fmt: skip
BAD_PIPELINES = (
    "infr", "infer,", ",", "{", "convert-opset", "convert-opset{to=x}", "convert-opset{to=99}",
    "set-dims{q=1}", "set-dims{n=-1}", "set-dims{n=[1]}", "fuse{emit=}", "name-dims{x:7=q}",
    "name-dims{x:0=3}", "split-tensor{limit=1XB}", "inline-functions{only=[Nope]}",
    "foreign{class=os:path}", "foreign{class=nope}", "onnxscript-rewrite{rules=os:sep}",
    "mixed-precision{keep-nodes=['(']}", "mixed-precision{limit=0}", "unify-dtype{from=[float32]}",
    "restamp{to=-1}", "restamp{to=7}", "infer" * 50, "fold{max-growth=-1}", "fold{max-growth=nan}",
    "\N{SNOWMAN}", "infer{", "infer}", "'infer", "split-tensor{limit=1}", "set-dims{n=99999999999}",
)  # fmt: skip
GOOD = {
    "opset": ("18", "17", "13", "21", "auto", "lowest"),
    "dtype": ("float32", "float16", "bfloat16"),
    "target": ("ort-cpu",),
    "quantize": ("int8", "int4"),
    "quant": ("matmul-nbits", "dequantize-linear", "float"),
    "fuse": ("standard", "ort"),
    "calibrate": ("random", "in.npz"),
    "passes": PIPELINES,
    "memory": ("1GB", "2GiB"),
    "verify_time": ("1", "0.5"),
    "shard_size": ("2GB", "4KB", "5000"),
    "layout": ("default", "hf", "single", "inline", "safetensors"),
    "weights": ("auto", "keep", "copy"),
    "jobs": ("1", "3"),
    "dump": ("dumped", "d"),
    "limit": ("0", "2"),
    "at": ("n=4",),
    "depth": ("0", "2"),
    "inputs": ("in.npz",),
    "seed": ("0", "7"),
    "tolerance": ("0.1",),
    "optimization": ("none", "all"),
    "emulate": ("float16",),
    "emulate_in": ("judged", "reference", "both"),
    "near": ("h", "nowhere"),
    "outputs": ("h", "y", "r,y"),
    "scope": ("a", "model.b"),
    "scopes": ("a,b", "a"),
    "layers": ("1", "2"),
    "budget": ("1KB", "1GB"),
    "check": ("true {}", "false {}", "test -d {}"),
    "says": ("", "no kernel"),
}
BAD = {
    "passes": BAD_PIPELINES,
    "inputs": ("no.npz", "one.onnx", ".", "-"),
    "calibrate": ("no.npz", "one.onnx", "-"),
    "dump": ("one.onnx", "one.onnx/x", "-"),
    "check": ("true", "no-such-program {}", "'", "/dev/null {}"),
    "at": ("m=3", "n", "n=x", "=3", "n=-1", "n=99999999999999999999"),
}
HOSTILE = (
    "", "-1", "0", "nan", "inf", "1e400", "99", "99999999999999999999999", "x", "--json",
    "\N{SNOWMAN}", "1.5", "null", "true", "float", "[1]", "a\nb", "\x1b[2J", "'", "18 ",
)  # fmt: skip
NAMES = {
    "passes": ("infer", "fold", "infr", "", "simplify", "\N{SNOWMAN}"),
    "rules": ("undone", "cast-of-cast", "explain", "no-such", ""),
    "opset": ("Resize", "Softmax", "resize", "Nope", "", "Gelu"),
}
ENCODINGS = ("utf-8", "utf-8", "cp1252", "ascii", "latin-1")
