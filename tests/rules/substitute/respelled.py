"""Rules of substitute.respelled: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from rules.instances import Draw, Hints

MODES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
EQUATIONS = ("abc->acb", "abc->ab", "aab->b", "abc,cd->abd", "abc,abc->a", "abc,db->dca")
_SHAPES = {"abc,cd->abd": "T[c,d]", "abc,abc->a": "T[a,b,c]", "abc,db->dca": "T[d,b]"}


def new_size(draw: Draw) -> list[ir.Value | None]:
    """The other inputs of a Resize: sizes or scales of a picture."""
    if draw.rng.random() < 0.6:
        sizes = [draw.dim("a"), draw.dim("b"), *draw.rng.integers(1, 7, 2)]
        return [None, None, draw.constant(np.array(sizes, np.int64))]
    return [None, draw.constant(np.array([1, 1, *draw.rng.choice([0.5, 2.0, 3.0], 2)], np.float32))]


def how(draw: Draw) -> Mapping[str, object]:
    mode = draw.choose(("nearest", "linear", "cubic"))
    given = {"mode": mode, "coordinate_transformation_mode": draw.choose(MODES)}
    if mode == "cubic":
        given["exclude_outside"] = int(draw.rng.integers(2))
    return given


def a_grid(draw: Draw) -> list[ir.Value]:
    dtype, shape = draw.typed("T[a,e,f,2]", None)
    return [draw.input(shape, dtype)]


def sampling(draw: Draw) -> Mapping[str, object]:
    modes = ("linear", "nearest", "cubic") if draw.opset >= 20 else ("bilinear", "nearest")
    return {
        "mode": draw.choose(modes),
        "padding_mode": draw.choose(("zeros", "border", "reflection")),
        "align_corners": int(draw.rng.integers(2)),
    }


def summed(draw: Draw) -> Mapping[str, object]:
    return {"equation": draw.chosen["equation"]}


def factors(draw: Draw) -> list[ir.Value]:
    """The second operand of an equation that has two."""
    draw.chosen["equation"] = equation = str(draw.choose(EQUATIONS[3:]))
    dtype, shape = draw.typed(_SHAPES[equation], None)
    return [draw.input(shape, dtype)]


def offset(draw: Draw) -> list[ir.Value]:
    steps = np.array(int(draw.rng.integers(-2, 3)), np.int64)
    return [draw.constant(steps)] if draw.rng.random() < 0.7 else []


def divisor(draw: Draw) -> list[ir.Value]:
    values = draw.rng.choice([-3, -2, 2, 3, 5], draw.dim("b")).astype(draw.dtype)
    return [draw.constant(values)]


# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "tile-to-expand": [
        ("(float[2,n] x) => (float[6,n] y)", "r = Constant<value_ints=[3, 1]>() y = Tile(x, r)", "")
    ],
    "resize-by-axis": [
        (
            "(float[1,2,8,n] x) => (float[1,2,5,3] y)",
            """s = Constant<value_ints=[1, 2, 5, 3]>()
            y = Resize<mode="cubic", antialias=1, cubic_coeff_a=-0.5, exclude_outside=1>
                (x, , , s)""",
            "",
        ),
        (
            "(float[1,2,8,6] x) => (float[1,2,4,6] y)",
            """s = Constant<value_ints=[4]>() y = Resize<mode="linear", axes=[2]>(x, , , s)""",
            "",
        ),
    ],
    "grid-sample-to-gathers": [
        (
            "(float[1,2,4,5] x, float[1,3,n,2] g) => (float[1,2,3,n] y)",
            f'y = GridSample<mode="{mode}", padding_mode="{padding}", align_corners={corners}>'
            "(x, g)",
            "",
        )
        for mode, padding, corners in (("linear", "zeros", 0), ("nearest", "reflection", 1))
    ],
    "einsum-to-products": [
        (
            "(float[2,n,8] x, float[8,4] w) => (float[2,n,4] y)",
            'y = Einsum<equation="bnd,de->bne">(x, w)',
            "",
        )
    ],
    "trilu-to-comparison": [
        (
            "(float[2,n,3] x, int64 k) => (float[2,n,3] y)",
            f"y = Trilu<upper={upper}>(x, k)",
            "",
        )
        for upper in (0, 1)
    ],
    "mod-to-rest": [
        (
            "(int64[2,n] x) => (int64[2,n] y)",
            f"d = Constant<value_int=-3>() y = Mod<fmod={fmod}>(x, d)",
            "",
        )
        for fmod in (0, 1)
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "tile-to-expand": [("(x, int64[2] r) => (y)", "y = Tile(x, r)", "rank")],
    "trilu-to-comparison": [("(x) => (y)", "y = Trilu(x)", "type")],
    "resize-by-axis": [
        (
            "(float[1,2,8,n] x, float[8] roi) => (float[1,2,5,3] y)",
            """s = Constant<value_ints=[1, 2, 5, 3]>()
            y = Resize<mode="linear", coordinate_transformation_mode="tf_crop_and_resize">
                (x, roi, , s)""",
            "tf_crop_and_resize",
        )
    ],
    "grid-sample-to-gathers": [
        ("(x, float[1,3,n,2] g) => (y)", "y = GridSample(x, g)", "rank"),
    ],
    "einsum-to-products": [
        ("(x, float[3,4] w) => (y)", 'y = Einsum<equation="bnd,de->bne">(x, w)', "rank")
    ],
    "mod-to-rest": [
        (
            "(float[2,n] x, float[n] d) => (float[2,n] y)",
            "y = Mod<fmod=1>(x, d)",
            "remainder of floats",
        )
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "tile-to-expand": {
        "any": "T[a,b,d]",
        "Tile+": lambda draw: [draw.constant(draw.rng.integers(0, 4, 3))],
        "dtypes": ("float32", "int64"),
    },
    "resize-by-axis": {
        "any": "T[a,b,d,e]",
        "Resize+": new_size,
        "node": how,
        "dtypes": ("float32",),
        "opset": (13, 18, 19),
    },
    "grid-sample-to-gathers": {
        "any": "T[a,b,d,e]",
        "GridSample+": a_grid,
        "node": sampling,
        "dtypes": ("float32",),
        "opset": (16, 20, 22),
    },
    "einsum-to-products": {
        "any": "T[a,b,c]",
        "Einsum+": factors,
        "node": summed,
        "dtypes": ("float32",),
    },
    "trilu-to-comparison": {"any": "T[a,b,d]", "Trilu+": offset, "dtypes": ("float32", "int64")},
    "mod-to-rest": {
        "any": "T[a,b]",
        "Mod+": divisor,
        "node": lambda draw: {"fmod": int(draw.rng.integers(2))},
        "dtypes": ("int32", "int64"),
    },
}
