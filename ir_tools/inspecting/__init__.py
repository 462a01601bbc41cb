"""Say what a model is made of, how large and how costly it is, without reading its weights."""

from vlmpass.ir_tools.inspecting.inspect import (
    DataFile,
    Inspection,
    Module,
    Port,
    Tie,
    WeightInfo,
    inspect_model,
)
from vlmpass.ir_tools.inspecting.macs import Macs, as_factor, macs_of
from vlmpass.ir_tools.inspecting.modules import module_of
from vlmpass.ir_tools.inspecting.precisions import Precisions, precisions_of
from vlmpass.ir_tools.inspecting.summary import Facts, Share, dtype_name

__all__ = [
    "DataFile",
    "Facts",
    "Inspection",
    "Macs",
    "Module",
    "Port",
    "Precisions",
    "Share",
    "Tie",
    "WeightInfo",
    "as_factor",
    "dtype_name",
    "inspect_model",
    "macs_of",
    "module_of",
    "precisions_of",
]
