"""A model of many nodes, run as pieces open together, gives and measures what it does whole."""

from __future__ import annotations

import numpy as np
import pytest
from run_models import EXPORTS, text_model

from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.run import RunError, ranges, segments
from vlmpass.ir_tools.run.addition import NOTHING
from vlmpass.ir_tools.run.allowance import UNBOUNDED, Allowance
from vlmpass.ir_tools.run.chain_runner import ChainRunner
from vlmpass.ir_tools.run.gauge import Gauge
from vlmpass.ir_tools.types import solve

NAMES = sorted(path.name for path in EXPORTS.glob("*.float32.*.onnx"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of a few nodes, for every model."""
    monkeypatch.setattr(segments, "_MOST_NODES", 17)
    monkeypatch.setattr(ranges, "_MANY_NODES", 0)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", NAMES[:: max(1, len(NAMES) // 5)])
def test_ranges_are_those_of_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(EXPORTS / name)
    assert len(segments.segments(model)) > 2
    pieces, stopped = ranges.generated_magnitudes(model, UNBOUNDED)
    monkeypatch.setattr(ranges, "_MANY_NODES", 1 << 40)
    whole, _ = ranges.generated_magnitudes(model, UNBOUNDED)
    assert stopped is None
    assert pieces == whole


@pytest.mark.usefixtures("small")
def test_a_value_that_many_pieces_take_and_one_that_a_subgraph_takes() -> None:
    lines = [f"y{i} = Add({f'y{i - 1}' if i else 'x'}, x)" for i in range(60)]
    body = (
        "then_branch = t () => (z) { z = Mul(y59, y3) }, else_branch = e () => (z) { z = Neg(x) }"
    )
    model = text_model(
        f"g (float[n] x, bool c, float[n] unused) => (float[n] x2, float[n] q, float w)"
        f"<float w = {{3.0}}> {{ {' '.join(lines)} q = If<{body}>(c) x2 = Identity(y0) }}"
    )
    x = np.arange(3, dtype=np.float32)
    with ChainRunner(model, lambda _: NOTHING, UNBOUNDED) as runner:
        for value in (True, False):
            made = runner.run({"x": x, "c": np.array(value), "unused": x})
            assert np.array_equal(made["x2"], 2 * x)
            assert np.array_equal(made["q"], 61 * x * 5 * x if value else -x)
            assert made["w"] == 3


@pytest.mark.usefixtures("small")
def test_what_a_piece_refuses_and_what_takes_too_much_is_an_error() -> None:
    lines = " ".join(f"y{i} = Add({f'y{i - 1}' if i else 'x'}, x)" for i in range(40))
    odd = text_model(f"g (float[n] x) => (float[m] q) {{ {lines} q = com.odd.Odd(y39) }}")
    with pytest.raises(RunError, match="Odd"):
        ChainRunner(odd, lambda _: NOTHING, UNBOUNDED)
    large = text_model(
        f"g (float[n] x) => (float[m,k] q) {{ {lines} a = Constant<value_ints=[1,-1]>()"
        " b = Constant<value_ints=[-1,1]>() c = Reshape(y39, a) d = Reshape(y39, b)"
        " q = MatMul(d, c) }"
    )
    with (
        ChainRunner(large, lambda _: NOTHING, Allowance(100_000_000, None)) as runner,
        pytest.raises(RunError) as error,
    ):
        runner.run({"x": np.ones(20_000, np.float32)})
    assert error.value.stage == "memory"


def test_numbers_of_a_gauge_are_named_as_nothing_in_the_model_is() -> None:
    model = text_model("g (float[n] x) => (float[n] q) { y = Neg(x) q = Neg(y) }")
    model.graph[0].outputs[0].name = "magnitude/0"
    gauge = Gauge(solve(model), model)
    outputs = gauge.prepare(model).outputs
    assert len(outputs) == 2
    assert not {*outputs} & {"magnitude/0", "magnitude/1"}
    gauge.see({outputs[0]: np.float32(2), "magnitude/0": np.float32(9)})
    assert gauge.found == {"magnitude/0": 2.0}
