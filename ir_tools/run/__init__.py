"""Run models on generated inputs, in a process of their own, and compare what they compute."""

from vlmpass.ir_tools.run.allowance import Allowance, default_memory
from vlmpass.ir_tools.run.compare import TOLERANCES, OutputDifference, compare, compare_arrays
from vlmpass.ir_tools.run.inputs import InputPlan, generate_inputs, read_inputs
from vlmpass.ir_tools.run.layers import LayerComparison, compare_layers
from vlmpass.ir_tools.run.recorded import verify_recorded
from vlmpass.ir_tools.run.runner import RunError, Runner
from vlmpass.ir_tools.run.verdict import Trial, Verification
from vlmpass.ir_tools.run.verify import verify

__all__ = [
    "TOLERANCES",
    "Allowance",
    "InputPlan",
    "LayerComparison",
    "OutputDifference",
    "RunError",
    "Runner",
    "Trial",
    "Verification",
    "compare",
    "compare_arrays",
    "compare_layers",
    "default_memory",
    "generate_inputs",
    "read_inputs",
    "verify",
    "verify_recorded",
]
