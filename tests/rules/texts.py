"""Parts of graphs that cases of several modules share."""

from __future__ import annotations

import ml_dtypes
import numpy as np

XN, X8 = "(float[2,n] x) => (float[2,n] y)", "(float[2,n,8] x, float[8] s) => (float[2,n,8] y)"

XB = "(float[2,n,8] x, float[8] s, float[8] t) => (float[2,n,8] y)"

SKIP = """(float[2,n,8] a, float[2,n,8] b, float[8] s, float[8] t)
    => (float[2,n,8] y, float[2,n,8] r)"""

NUMBERS = """zero = Constant<value_float=0.0>() half = Constant<value_float=0.5>()
    one = Constant<value_float=1.0>() two = Constant<value_float=2.0>()
    three = Constant<value_float=3.0>() six = Constant<value_float=6.0>()
    root2 = Constant<value_float=1.4142135>() eps = Constant<value_float=0.000001>()
    axes = Constant<value_ints=[-1]>() """


def brain(name: str, number: float) -> str:
    """A constant that was rounded to bfloat16, behind a Cast."""
    bits = int(np.float32(number).astype(ml_dtypes.bfloat16).view(np.uint16))
    return f"{name}_ = Constant<value = bfloat16 {{{bits}}}>() {name} = Cast<to=1>({name}_)"


def half(name: str, number: float) -> str:
    """A constant that was rounded to float16, behind a Cast."""
    bits = int(np.float16(number).view(np.uint16))
    return f"{name}_ = Constant<value = float16 {{{bits}}}>() {name} = Cast<to=1>({name}_)"


def single(name: str, number: float) -> str:
    return f"{name} = Constant<value_float={float(np.float32(number))!r}>()"


X = "(float[n,8] x) => (float[n,8] y)"
