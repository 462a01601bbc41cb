"""Lazy tensors: leaves are ranges of files, the rest is computed in chunks of bounded size."""

from vlmpass.ir_tools.weights.boxes import Box
from vlmpass.ir_tools.weights.evaluate import CHUNK_BYTES
from vlmpass.ir_tools.weights.files import release_files
from vlmpass.ir_tools.weights.leaves import Expression, FileRange
from vlmpass.ir_tools.weights.operators import (
    cast,
    cast_from,
    columns,
    concat,
    derived,
    reshape,
    rows,
    scale,
    take,
    transpose,
)
from vlmpass.ir_tools.weights.tally import Tally
from vlmpass.ir_tools.weights.weight import (
    LazyWeight,
    StoredWeight,
    Weight,
    as_weight,
    file_range,
)

__all__ = [
    "CHUNK_BYTES",
    "Box",
    "Expression",
    "FileRange",
    "LazyWeight",
    "StoredWeight",
    "Tally",
    "Weight",
    "as_weight",
    "cast",
    "cast_from",
    "columns",
    "concat",
    "derived",
    "file_range",
    "release_files",
    "reshape",
    "rows",
    "scale",
    "take",
    "transpose",
]
