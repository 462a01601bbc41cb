"""A request that matched nothing says so: every option of every pass, and of the command line."""

import numpy as np
import onnx
import pytest
from door_tools import mlp_model

import vlmpass
from vlmpass.passes.pipeline.options import options_of
from vlmpass.passes.pipeline.registry import PASSES

# What each says of y = relu(x @ a) @ b, which has nothing of it. None: it tidies up, or says how
# and not what; whether it changed something stands in the table of passes.
SAID = {
    "cache{length=64}": "the model has no cache of another form",
    "cache{form=dynamic}": "the model has no cache of another form",
    "convert-opset{to=17}": "the model is at that opset already",
    "convert-opset{to=17 interface=wider}": "opset 17 has the types of every input and output",
    "cse": "no two nodes compute the same",
    "dead-branches": "no If or Loop is decided",
    "dedupe-initializers": "no two initializers are equal",
    "dedupe-initializers{limit=1MB}": "no two initializers are equal",
    "fix-names": None,
    "fold": "nothing to fold",
    "fold{max-growth=2}": "nothing to fold",
    "foreign{class=onnx_ir.passes.common:RemoveUnusedNodesPass}": "the pass changed nothing",
    "foreign{class=onnx_ir.passes.common:CommonSubexpressionEliminationPass"
    " size_limit=9}": "the pass changed nothing",
    "fuse": "nothing in the model is spelled out that one operator says",
    "fuse{emit=ort}": "nothing in the model is spelled out that one operator says",
    "fuse{target=ort-cpu}": "nothing in the model is spelled out that one operator says",
    "infer": None,
    "inline-functions": "the model has no functions",
    "inline-functions{only=[Gelu]}": "REFUSED the model has no function Gelu",
    "legalize{target=ort-cpu}": "the target runs every node already",
    "legalize{target=ort-cpu interface=wider}": "the target runs every node already",
    "legalize{target=ort-cpu allow=approximate}": "the target runs every node already",
    "logits": "REFUSED no output has that name",
    "logits{output=scores}": "REFUSED no output has that name",
    "logits{last=false}": "the logits are of one token, or of all as asked for",
    "mend-shifts": "the model has no division that stands for a shift of packed words",
    "mixed-precision{to=float16 keep-ops=[Erf]}": "keep-ops: the model has no Erf",
    "mixed-precision{to=float16 narrow-ops=[Softmax]}": "narrow-ops: the model has no Softmax",
    "mixed-precision{to=float16 keep-nodes=[lm_head]}": "no node is named like 'lm_head'",
    "mixed-precision{to=float16 calibrate=random limit=1.0}": "near the end of its range",
    "mixed-precision{to=float16 keep-io=true}": None,
    "move-transposes": "no Transpose to save",
    "name-dims{x:0=n}": "x:0 is dynamic and is named n already",
    "name-dims{y:5=n}": "REFUSED no such axis",
    "narrow-integers{keep-io=true}": "nothing computes with int64",
    "narrow-integers{partly=true}": "nothing computes with int64",
    "onnxscript-rewrite{rules=onnxscript.rewriter.rules.common:reshape_reshape_rule}": (
        "no rule matched"
    ),
    "pack-products": "no two products with weights of their own have one input",
    "prefill": "the model has no cache that grows",
    "quant-linear": "the model has no linear layer with packed weights",
    "quant-linear{to=float}": "the model has no linear layer with packed weights",
    "quantize-dynamic{weights=uint8 at-least=1000000}": "no product has a float weight to round",
    "quantize-dynamic{exclude=[lm_head]}": "exclude: no node is named like 'lm_head'",
    "quantize-static{calibrate=random at-least=1000000}": (
        "no product has a float weight to round"
    ),
    "quantize-static{calibrate=random exclude=[lm_head]}": (
        "exclude: no node is named like 'lm_head'"
    ),
    "quantize-static{calibrate=a.npz method=percentile percentile=99.0 target=iree}": (
        "REFUSED nothing is known of products of rounded numbers on iree"
    ),
    "quantize-weights{tied=true at-least=1000000}": "no product has a float weight to round",
    "quantize-weights{at-least=1000000}": "no product has a float weight to round",
    "quantize-weights{bits=4 symmetric=false search=false at-least=1000000}": (
        "no product has a float weight to round"
    ),
    "quantize-weights{form=matmul-nbits block=32 at-least=1000000}": (
        "no product has a float weight to round"
    ),
    "quantize-weights{bits=4 form=matmul-nbits symmetric=false algorithm=hqq at-least=1000000}": (
        "no product has a float weight to round"
    ),
    "quantize-weights{algorithm=gptq calibrate=random damping=0.1 at-least=1000000}": (
        "no product has a float weight to round"
    ),
    "quantize-weights{exclude=[lm_head]}": "exclude: no node is named like 'lm_head'",
    "remove-unused": None,
    "repair-types": "the model is well typed",
    "repair-types{prefer=float32}": "the model is well typed",
    "restamp": "opset 17 is the one that the nodes are written for",
    "restamp{to=17}": "opset 17 is stamped already",
    "set-dims{m=3}": "REFUSED no axis of an input has this name",
    "set-dims{x:1=32}": "x:1 has the size 32 already",
    "shape-arithmetic": None,
    "simplify": "nothing to simplify",
    "simplify{fast-math=true}": "nothing to simplify",
    "simplify{target=onnx-standard}": "nothing to simplify",
    "split-tensor": "no weight is larger",
    "split-tensor{limit=1MB}": "no weight is larger",
    "substitute": "the model has nothing of the kind",
    "substitute{operators=[Einsum]}": "the model has nothing of the kind",
    "tie": "no table of embeddings is held a second time",
    "topological-sort": None,
    "trim-outputs": "every output is used",
    "unfuse": "nothing was said in other operators",
    "unfuse{to=primitive}": "nothing was said in other operators",
    "unroll-loops{most=2}": "no Loop or Scan runs a constant number of times",
    "unroll-loops{nodes=9}": "no Loop or Scan runs a constant number of times",
    "unify-dtype": "unify-dtype to float32: nothing to convert",
    "unify-dtype{to=float16 from=[float64]}": "nothing to convert",
    "unify-dtype{from=[float64]}": "nothing to convert",
    "unify-dtype{keep-io=true}": "keep-io: no input or output has a type that is converted",
    "unify-dtype{keep-rounding=true}": "nothing to convert",
    "unify-dtype{restore-constants=false}": "nothing to convert",
}
INTENTS = {
    ("opset", 17): "the model is at that opset already",
    ("quant", "matmul-nbits"): "the model has no linear layer with packed weights",
    ("quant", "dequantize-linear"): "the model has no linear layer with packed weights",
    ("quant", "float"): "the model has no linear layer with packed weights",
    ("fuse", "ort"): "nothing in the model is spelled out",
    ("fuse", "standard"): "nothing in the model is spelled out",
    ("simplify", True): "simplify: nothing to simplify",
    ("dtype", "float32"): "unify-dtype to float32: nothing to convert",
    ("mend_shifts", True): "the model has no division that stands for a shift",
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    model = onnx.load(mlp_model(folder))
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.save(model, folder / "mlp.onnx")
    return folder / "mlp.onnx"


def test_every_option_of_every_pass_is_in_the_table():
    tried = {text.partition("{")[0] for text in SAID}
    assert tried == set(PASSES)
    for name in PASSES:
        texts = [text for text in SAID if text.partition("{")[0] == name]
        for option in options_of(PASSES[name]):
            given = any(f"{option.name}=" in text for text in texts)
            assert given or option.free, f"{name} {option.name}"


@pytest.mark.parametrize("text", SAID)
def test_a_pass_that_finds_nothing_says_so(plain, text):
    said = SAID[text]
    if said is not None and said.startswith("REFUSED "):
        with pytest.raises(vlmpass.VlmpassError, match=said.removeprefix("REFUSED ")):
            vlmpass.Pipeline(text).run(plain)
        return
    notes = vlmpass.Pipeline(text).run(plain).notes
    if said is None:
        assert notes == ()
    else:
        assert any(said in note for note in notes), notes
        assert all(note.count("\n") == 0 for note in notes)


@pytest.mark.parametrize(("name", "value"), INTENTS)
def test_an_intent_that_finds_nothing_says_so(plain, name, value):
    report = vlmpass.Pipeline(**{name: value}).run(plain)
    assert any(INTENTS[name, value] in note for note in report.notes), report.notes
    assert "note" in str(report)


def test_what_matched_says_nothing(tmp_path):
    """Where some run of a pass changed something, the others that did not are no news."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[n] x) => (float[n] y) { a = Identity(x)  b = Relu(a)  y = Relu(b) }"""
    )
    onnx.save(model, tmp_path / "m.onnx")
    passes = "fold,simplify,convert-opset{to=18}"
    for given in ({"simplify": True, "opset": 18}, {"passes": passes}):
        notes = vlmpass.Pipeline(**given).run(tmp_path / "m.onnx").notes
        assert not any("simplify" in note or "opset" in note for note in notes), notes


def test_a_target_that_changes_no_opset_widens_nothing(plain):
    notes = vlmpass.Pipeline(target="ort-cpu", widen_io=True).run(plain).notes
    assert any("widen-io: the opset stays" in note for note in notes), notes


def test_types_of_inputs_and_outputs_that_are_kept_anyway(tmp_path):
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        g (int64[n] x) => (int64[n] y) <float[1] w = {0.5}> {
            a = Cast<to = 1>(x)  b = Mul(a, w)  y = Cast<to = 7>(b)
        }"""
    )
    onnx.save(model, tmp_path / "m.onnx")
    notes = vlmpass.Pipeline(dtype="float16", keep_io=True).run(tmp_path / "m.onnx").notes
    assert any("keep-io: no input or output has a type that is converted" in n for n in notes)


def test_the_report_and_its_json_have_the_notes(door, plain, tmp_path):
    out = tmp_path / "out.onnx"
    code, text, _ = door("convert", plain, out, "--quant", "float", "--no-verify")
    assert code == 0
    assert "no linear layer with packed weights" in " ".join(text.split())
    np.testing.assert_equal(len(onnx.load(out).graph.node), 3)
