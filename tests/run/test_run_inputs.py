import itertools

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from run_models import EXPORTS, text_model, with_initializer

from vlmpass import Pipeline
from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.run import InputPlan, generate_inputs, read_inputs


def shapes(feed):
    return {name: array.shape for name, array in feed.items()}


def test_same_seed_same_inputs_other_seed_other_inputs():
    model = load(EXPORTS / "decoder.float32.dyn18.onnx")
    one, again, other = (generate_inputs(model, seed) for seed in (0, 0, 1))
    for name in one:
        np.testing.assert_array_equal(one[name], again[name])
    assert not np.array_equal(one["input_ids"], other["input_ids"])


def test_a_decoder_with_a_cache_gets_what_belongs_together():
    model = load(EXPORTS / "decoder.float32.ts17.onnx")
    for size in (0, 1):
        feed = generate_inputs(model, size=size)
        batch, sequence = feed["input_ids"].shape
        past = feed["past_key_0"].shape[2]
        assert feed["attention_mask"].shape == (batch, past + sequence)
        assert feed["position_ids"][0].tolist() == list(range(past, past + sequence))
        assert feed["input_ids"].max() < 96
        assert feed["past_key_0"].std() > 0.5
    assert generate_inputs(model, size=0)["input_ids"].shape != feed["input_ids"].shape


def test_the_mask_hides_padding_on_the_left_of_odd_rows():
    mask = generate_inputs(load(EXPORTS / "decoder.float32.ts17.onnx"))["attention_mask"]
    assert mask[0].all()
    assert not mask[1, 0]
    assert mask[1, -1]


def test_ids_stay_within_the_table_behind_casts_reshapes_and_offsets():
    model = text_model(
        """g (int64[batch, seq] tokens, float[10, 4] table) => (float[m, 4] y) {
            two = Constant<value_int = 2>()
            flat_to = Constant<value_ints = [-1]>()
            c = Cast<to = 6>(tokens)
            w = Cast<to = 7>(c)
            f = Reshape(w, flat_to)
            s = Add(f, two)
            y = Gather(table, s)
        }"""
    )
    with_initializer(model, "table", np.ones((10, 4), np.float32))
    for seed in range(20):
        assert generate_inputs(model, seed)["tokens"].max() < 8


def test_ids_are_followed_into_functions():
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17, "f": 1]>
        g (int64[b, s] input_ids, float[7, 4] table) => (float[b, s, 4] y) {
            y = f.embed(table, input_ids)
        }
        <domain: "f", opset_import: ["": 17]>
        embed (t, i) => (o) { o = Gather(t, i) }"""
    )
    with_initializer(model, "table", np.ones((7, 4), np.float32))
    ids = [generate_inputs(model, seed)["input_ids"].max() for seed in range(20)]
    assert max(ids) == 6


def test_a_compared_id_occurs_once_in_each_row():
    model = text_model(
        """g (int64[batch, seq] input_ids, float[50, 4] table)
            => (float[batch, seq, 4] y, bool[batch, seq] m) {
            token = Constant<value_int = 49>()
            m = Equal(input_ids, token)
            y = Gather(table, input_ids)
        }"""
    )
    with_initializer(model, "table", np.ones((50, 4), np.float32))
    ids = generate_inputs(model)["input_ids"]
    assert ((ids == 49).sum(axis=1) == 1).all()


def test_image_sides_are_multiples_of_the_patch():
    model = text_model(
        """g (float[b, 3, height, width] pixel_values, float[8, 3, 14, 14] w)
            => (float[b, 8, p, q] y) {
            y = Conv<strides = [14, 14]>(pixel_values, w)
        }"""
    )
    with_initializer(model, "w", np.ones((8, 3, 14, 14), np.float32))
    sides = {generate_inputs(model, size=size)["pixel_values"].shape[2:] for size in (0, 1)}
    assert len(sides) == 2
    for height, width in sides:
        assert height % 14 == width % 14 == 0
        assert height != width


def test_a_position_table_suggests_the_image_side():
    model = text_model(
        """g (float[b, 3, height, width] pixel_values, float[8, 3, 14, 14] w, float[1, 25, 8] pos)
            => (float[b, n, 8] y) {
            to = Constant<value_ints = [0, 8, -1]>()
            c = Conv<strides = [14, 14]>(pixel_values, w)
            r = Reshape(c, to)
            t = Transpose<perm = [0, 2, 1]>(r)
            y = Add(t, pos)
        }"""
    )
    with_initializer(model, "w", np.ones((8, 3, 14, 14), np.float32))
    with_initializer(model, "pos", np.ones((1, 25, 8), np.float32))
    tried = [attempt.dims for attempt in itertools.islice(InputPlan(model).attempts(0), 4)]
    assert {"b": 2, "height": 70, "width": 70} in tried


def test_declared_expressions_and_unnamed_dimensions():
    model = text_model(
        """g (int64[a, b] attention_mask, int64[c, d] input_ids, float[e, f, 4] past_key)
            => (float[e, f, 4] y) { y = Identity(past_key) }"""
    )
    by_name = {value.name: value for value in model.graph.inputs}
    by_name["attention_mask"].shape = ir.Shape(("batch", "past + seq"))
    by_name["input_ids"].shape = ir.Shape(("batch", "seq"))
    by_name["past_key"].shape = ir.Shape(("batch", "past", 4))
    feed = generate_inputs(model)
    past, sequence = feed["past_key"].shape[1], feed["input_ids"].shape[1]
    assert feed["attention_mask"].shape == (2, past + sequence)
    for value in model.graph.inputs:
        value.shape = ir.Shape([None if isinstance(d, ir.SymbolicDim) else d for d in value.shape])
    assert shapes(generate_inputs(model)) == shapes(feed)


def test_attempts_try_other_relations_when_the_first_is_refused():
    model = load(EXPORTS / "decoder.float32.ts17.onnx")
    totals = {attempt.inputs["attention_mask"].shape[1] for attempt in InputPlan(model).attempts(0)}
    assert {11, 6} <= totals


def test_pinned_sizes_hold():
    plan = InputPlan(load(EXPORTS / "decoder.float32.ts17.onnx"))
    (name, *_) = plan.dimensions.names
    assert all(attempt.dims[name] == 4 for attempt in plan.attempts(0, pinned={name: 4}))


def test_grids_count_the_patches():
    model = text_model(
        """g (float[num_patches, 12] pixel_values, int64[images, 3] image_grid_thw)
            => (float[num_patches, 12] y) { y = Identity(pixel_values) }"""
    )
    for size in (0, 1):
        feed = generate_inputs(model, size=size)
        assert feed["image_grid_thw"].prod(axis=1).sum() == feed["pixel_values"].shape[0]
        assert (feed["image_grid_thw"][:, 1:] % 2 == 0).all()


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("float", np.float32),
        ("double", np.float64),
        ("float16", np.float16),
        ("bfloat16", ml_dtypes.bfloat16),
        ("int8", np.int8),
        ("uint8", np.uint8),
        ("int32", np.int32),
        ("bool", np.bool_),
        ("float8e4m3fn", ml_dtypes.float8_e4m3fn),
        ("string", object),
    ],
)
def test_every_type_can_be_drawn(kind, dtype):
    model = text_model(f"g ({kind}[n, 3] x) => ({kind}[n, 3] y) {{ y = Identity(x) }}", 19, 9)
    array = generate_inputs(model)["x"]
    assert array.dtype == np.dtype(dtype)
    assert array.shape == (2, 3)


def test_float_masks_are_offsets_where_they_are_added_and_ones_where_multiplied():
    added = text_model(
        """g (float[b, 1, s, s] attention_mask, float[b, 1, s, s] scores)
            => (float[b, 1, s, s] y) { y = Add(scores, attention_mask) }"""
    )
    mask = generate_inputs(added)["attention_mask"]
    assert set(np.unique(mask)) == {0.0, -10000.0}
    assert (np.triu(mask[0, 0], 1) < 0).sum() == np.triu(np.ones_like(mask[0, 0]), 1).sum()
    multiplied = text_model(
        """g (float[b, s] attention_mask, float one) => (float[b, s] y) {
            y = Sub(one, attention_mask)
        }"""
    )
    assert set(np.unique(generate_inputs(multiplied)["attention_mask"])) == {0.0, 1.0}


def test_masks_of_booleans_are_tried_both_ways():
    model = text_model("g (float[2,4] x, bool[2,4] key_mask) => (float[2,4] y) { y = Neg(x) }")
    tried = [(each.padded, each.hides) for each in InputPlan(model).attempts(0)]
    assert tried == [(True, False), (False, False), (True, True)]
    seen, _, hidden = (each.inputs["key_mask"] for each in InputPlan(model).attempts(0))
    np.testing.assert_array_equal(hidden, ~seen)


def test_a_mask_of_rows_hides_one_throughout_at_the_last_size():
    model = text_model(
        """g (float[b, 2, s, s] x, float[b, 1, s, s] mask, int64[b, s] attention_mask) =>
        (float[b, 2, s, s] y) { y = Add(x, mask) }"""
    )
    plan = InputPlan(model, empties=True)
    for size, count in ((0, 0), (1, 1)):
        first, second = itertools.islice(plan.attempts(size), 2)
        hidden = np.isneginf(first.inputs["mask"])
        assert hidden[0, 0, 0].all() == count
        assert hidden.all(-1).sum() == count
        assert not np.isinf(second.inputs["mask"]).any()
        assert first.inputs["attention_mask"].any(-1).all()


def test_scalars_and_lengths():
    model = text_model(
        """g (int64[batch, seq] input_ids, int64 num_logits_to_keep, int32[batch] seq_lengths,
            bool use_cache_branch) => (int64[batch, seq] y) { y = Identity(input_ids) }"""
    )
    feed = generate_inputs(model)
    assert feed["num_logits_to_keep"] == 1
    assert (feed["seq_lengths"] == feed["input_ids"].shape[1]).all()
    assert feed["use_cache_branch"].shape == ()


def test_sequences_are_lists():
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]>
        g (seq(float[n, 2]) xs) => (float[m, 2] y) { y = ConcatFromSequence<axis = 0>(xs) }"""
    )
    model.graph.inputs[0].shape = ir.Shape(("n", 2))
    feed = generate_inputs(model)
    assert [array.shape for array in feed["xs"]] == [(2, 2), (2, 2)]


def test_an_input_without_rank_is_refused_with_a_remedy():
    model = text_model("g (float[n] x) => (float[n] y) { y = Identity(x) }")
    model.graph.inputs[0].shape = None
    with pytest.raises(VerifyError, match="'x' declares no rank; give values with --inputs"):
        generate_inputs(model)


def test_own_inputs_are_read_and_cast(tmp_path):
    model = text_model("g (float16[n] x, int32[n] i) => (float16[n] y) { y = Identity(x) }")
    path = tmp_path / "in.npz"
    np.savez(path, x=np.arange(3.0), i=np.arange(3))
    feed = read_inputs(path, model)
    assert feed["x"].dtype == np.float16
    assert feed["i"].dtype == np.int32
    np.savez(path, x=np.arange(3.0), z=np.arange(3))
    with pytest.raises(VerifyError, match=r"lacks i and has z"):
        read_inputs(path, model)
    np.savez(path, x=np.array(["one"]), i=np.arange(3))
    with pytest.raises(VerifyError, match="'x' is <U3, and input 'x' takes float16"):
        read_inputs(path, model)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut short"])
def test_what_is_no_archive_of_inputs_is_refused(tmp_path, content):
    model = text_model("g (float[n] x) => (float[n] y) { y = Identity(x) }")
    path = tmp_path / "in.npz"
    path.write_bytes(content)
    with pytest.raises(VerifyError, match=r"is no .npz file; numpy.savez writes one"):
        read_inputs(path, model)
    with pytest.raises(VerifyError, match="there is no file of inputs"):
        read_inputs(tmp_path / "other.npz", model)


def test_inputs_without_dimensions_are_arrays():
    model = text_model(
        """g (bool c, float f, float16 h, int64 i) => (float y) {
            k = Cast<to=1>(c) l = Cast<to=1>(i) m = Cast<to=1>(h) y = Sum(k, l, m, f) }"""
    )
    feed = generate_inputs(model)
    for value in model.graph.inputs:
        assert isinstance(feed[value.name], np.ndarray)
        assert feed[value.name].shape == ()
        assert feed[value.name].dtype == value.dtype.numpy()


@pytest.mark.parametrize("intent", [{"dtype": "float16"}, {"opset": 17}])
def test_inputs_without_end_are_not_generated(intent, tmp_path):
    """An input of a trillion rows ended a conversion in numpy's MemoryError."""
    source = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 18]>
        g (float[1099511627776,s,8] x) => (float[1099511627776,s,8] y) { y = Neg(x) }"""
    )
    with pytest.raises(VerifyError, match=r"input 'x' has .* elements, and values for that"):
        generate_inputs(source)
    report = Pipeline(**intent).convert(source, tmp_path / "out.onnx")
    assert report.checked.numbers is None
    assert "values for that many are not made" in report.checked.reason


def test_the_other_sides_are_an_empty_cache_and_padding_at_the_end():
    model = load(EXPORTS / "decoder.float32.ts17.onnx")
    sides = {kind: next(attempts) for kind, attempts in InputPlan(model).sides()}
    empty = sides["an empty cache"].inputs
    assert empty["past_key_0"].shape[2] == 0
    assert empty["attention_mask"].shape == empty["input_ids"].shape
    assert empty["position_ids"][0, 0] == 0
    mask = sides["padding at the end"].inputs["attention_mask"]
    assert not mask[0, -1]
    assert mask[:, 0].all()
    assert mask[1].all()
    (past, *_) = InputPlan(model).dimensions.caches
    assert [kind for kind, _ in InputPlan(model).sides(pinned={past: 4})] == ["padding at the end"]


def test_a_model_without_masks_and_caches_has_no_other_sides():
    model = text_model("g (float[batch, seq] x) => (float[batch, seq] y) { y = Neg(x) }")
    assert list(InputPlan(model).sides()) == []
