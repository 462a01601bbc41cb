"""A decoder of ONNX Runtime's own operators, as its builder of generative models writes them, said
in standard ones and run in OpenVINO.

    python examples/systems/contrib_decoder.py
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx_ir as ir
from shown import furthest, on_onnxruntime, refusal, show

import vlmpass

WIDTH, HEADS, KEYS, SIZE, INNER, WORDS, LONGEST = 64, 4, 2, 16, 96, 128, 64
WIDE, NARROW = HEADS * SIZE, KEYS * SIZE

LAYER = """
    q{i} = com.microsoft.MatMulNBits<K={width}, N={wide}, bits=4, block_size=32>(
        norm{i}, q{i}_packed, q{i}_scales)
    k{i} = MatMul(norm{i}, k{i}_weight)
    v{i} = MatMul(norm{i}, v{i}_weight)
    turned_q{i} = com.microsoft.RotaryEmbedding(q{i}, positions, cos, sin)
    turned_k{i} = com.microsoft.RotaryEmbedding(k{i}, positions, cos, sin)
    mixed{i}, present_{i}_key, present_{i}_value = com.microsoft.GroupQueryAttention<
        num_heads={heads}, kv_num_heads={keys}>(
        turned_q{i}, turned_k{i}, v{i}, past_{i}_key, past_{i}_value, lengths, total)
    out{i} = MatMul(mixed{i}, o{i})
    mid{i}, "", "", stream{i} = com.microsoft.SkipSimplifiedLayerNormalization<epsilon=1e-6>(
        x{i}, out{i}, gain{i})
    gate{i} = MatMul(mid{i}, gate{i}_weight)
    up{i} = MatMul(mid{i}, up{i}_weight)
    active{i} = com.microsoft.QuickGelu<alpha=1.0>(gate{i})
    both{i} = Mul(active{i}, up{i})
    down{i} = MatMul(both{i}, down{i}_weight)
    norm{n}, "", "", x{n} = com.microsoft.SkipSimplifiedLayerNormalization<epsilon=1e-6>(
        stream{i}, down{i}, gain{i}_next)"""

TEXT = """<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>
decoder (int64[b, s] input_ids, int64[b, t] attention_mask, int64[b, s] positions{inputs}
         {weights})
    => (float[b, s, {words}] logits{outputs}) {{
    sums = ReduceSum<keepdims=0>(attention_mask, one)
    less = Sub(sums, one)
    lengths = Cast<to=6>(less)
    sizes = Shape(attention_mask)
    length = Gather(sizes, at_one)
    total = Cast<to=6>(length)
    x0 = Gather(words, input_ids)
    norm0 = SimplifiedLayerNormalization<axis=-1, epsilon=1e-6>(x0, first){layers}
    logits = MatMul(norm{count}, head)
}}"""


def weights(count: int) -> dict[str, np.ndarray]:
    """Return random weights by name, in four bits where they are packed."""
    rng = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (rng.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)

    def gain() -> np.ndarray:
        return rng.uniform(0.5, 1.5, WIDTH).astype(np.float32)

    angles = np.arange(LONGEST)[:, None] / 1e4 ** (np.arange(SIZE // 2) / (SIZE // 2))
    found = {
        "one": np.array([1]), "at_one": np.array(1), "words": matrix(WORDS, WIDTH),
        "first": gain(), "head": matrix(WIDTH, WORDS),
        "cos": np.cos(angles).astype(np.float32), "sin": np.sin(angles).astype(np.float32),
    }  # fmt: skip
    for i in range(count):
        found |= {
            f"q{i}_packed": rng.integers(0, 256, (WIDE, WIDTH // 32, 16), dtype=np.uint8),
            f"q{i}_scales": rng.uniform(0.01, 0.03, (WIDE, WIDTH // 32)).astype(np.float32),
            f"k{i}_weight": matrix(WIDTH, NARROW), f"v{i}_weight": matrix(WIDTH, NARROW),
            f"o{i}": matrix(HEADS * SIZE, WIDTH), f"gain{i}": gain(), f"gain{i}_next": gain(),
            f"gate{i}_weight": matrix(WIDTH, INNER), f"up{i}_weight": matrix(WIDTH, INNER),
            f"down{i}_weight": matrix(INNER, WIDTH),
        }  # fmt: skip
    return found


def decoder(count: int = 2) -> ir.Model:
    """Return a decoder with caches."""
    held = weights(count)
    kinds = {"f": "float", "i": "int64", "u": "uint8"}
    names = [f"{i}_{part}" for i in range(count) for part in ("key", "value")]
    sizes = {"width": WIDTH, "wide": WIDE, "heads": HEADS, "keys": KEYS}
    text = TEXT.format(
        inputs="".join(f", float[b, {KEYS}, p, {SIZE}] past_{each}" for each in names),
        outputs="".join(f", float[b, {KEYS}, t, {SIZE}] present_{each}" for each in names),
        layers="".join(LAYER.format(i=i, n=i + 1, **sizes) for i in range(count)),
        weights="".join(
            f", {kinds[x.dtype.kind]}[{', '.join(map(str, x.shape))}] {name}"
            for name, x in held.items()
        ),
        words=WORDS,
        count=count,
    )
    model = ir.from_onnx_text(text)
    for value in [each for each in model.graph.inputs if each.name in held]:
        value.const_value = ir.tensor(held[value.name], name=value.name)
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    return model


def compiled(path: Path) -> object:
    import openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    return openvino.Core().compile_model(str(path), "CPU", exact)


def main() -> int:
    feed = {"input_ids": np.array([[3, 14, 15, 92, 65]]), "attention_mask": np.ones((1, 5), int)}
    feed["positions"] = np.arange(5)[None]
    empty = np.zeros((1, KEYS, 0, SIZE), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        source, path = Path(folder) / "decoder.onnx", Path(folder) / "openvino.onnx"
        made = decoder()
        vlmpass.save(made, source)
        before = refusal(lambda: compiled(source), "While validating")
        report = vlmpass.Pipeline(target="openvino").convert(source, path, verify=True)
        feed |= {each.name: empty for each in made.graph.inputs if "past" in each.name}
        model = compiled(path)
        fed = [feed[each.any_name] for each in model.inputs]
        found = [np.asarray(each) for each in model(fed).values()]
        error = furthest(on_onnxruntime(source, feed)(), found)
        system = "decoder of contrib operators in OpenVINO"
        fine = show(system, before, report, error, 1e-4, lambda: model(fed))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
