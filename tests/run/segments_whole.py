"""A model compared in one session and in segments: the same verdict and numbers, bit for bit.

In both ONNX Runtime runs the kernels that take weights as they lie in the file: those for weights
that are laid out anew, as a single session has them by default, add up in another order.

python benchmarks/decoder.py one.onnx --size 1GB
vlmpass convert one.onnx other.onnx --simplify --opset 18 --no-verify
python tests/run/segments_whole.py one.onnx other.onnx
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial

from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.run import Runner, generate_inputs, participants, verify
from vlmpass.ir_tools.run.segment_runner import SegmentRunner
from vlmpass.report import to_data


def same_bits(path: str) -> bool:
    """Whether a model gives the same bits whole as in segments, on both sizes of its inputs."""
    model = load(path)
    feeds = [generate_inputs(model, size=size) for size in (0, 1)]
    with Runner(path, prepack=False) as whole, SegmentRunner(load(path)) as pieces:
        print(f"{path}: {len(pieces.segments)} segments, ", end="", flush=True)
        pairs = zip(whole.run_each(feeds), pieces.run_each(feeds), strict=True)
        equal = all(
            {n: v.tobytes() for n, v in a.items()} == {n: v.tobytes() for n, v in b.items()}
            for a, b in pairs
        )
        peaks = f"peak {whole.peak_rss / 1e6:.0f} MB whole, {pieces.peak_rss / 1e6:.0f} in segments"
    print("equal bit for bit" if equal else "other bits", peaks, sep=", ")
    return equal


def main(a: str, b: str) -> int:
    """Compare both ways; print what each found."""
    bits = [same_bits(path) for path in (a, b)]
    found = []
    participants.Runner = partial(Runner, prepack=False)  # type: ignore[misc,assignment]
    for most in (1 << 60, 0):
        participants.ONE_SESSION = most
        each = verify(a, b)
        print(f"{each.actual_ran}: ok {each.ok}, {each.max_rel:.3e}, {each.seconds:.1f} s")
        found.append(replace(each, expected_ran="", actual_ran="", seconds=0.0))
    one, two = map(to_data, found)
    other = [name for name in one if one[name] != two[name]]
    print(f"other: {other}: {found}" if other else "the same verdict and numbers")
    return 0 if all(bits) and found[0] == found[1] else 1


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
