"""Tiny models of many architectures with random weights, and how many blocks each computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn

__all__ = ["ARCHITECTURES", "Architecture", "Exported"]

HIDDEN, HEADS, KV_HEADS, LAYERS, VOCAB = 64, 4, 2, 2, 96


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    Attributes:
        name: How it is called.
        model: Makes the model for an attention implementation, `eager` or `sdpa`.
        inputs: What it takes, without the cache.
        dims: The open axes of each input.
        blocks: How many blocks of each kind it computes, from its config.
        cached: Whether it takes a cache of keys and values.
    """

    name: str
    model: Callable[[str], nn.Module]
    inputs: Mapping[str, Tensor]
    dims: Mapping[str, dict[int, str]]
    blocks: Mapping[str, int]
    cached: bool = False
    head: tuple[int, int] = (KV_HEADS, HIDDEN // HEADS)


class Exported(nn.Module):
    """A model whose inputs and outputs are tensors, the cache's one by one."""

    def __init__(self, model: nn.Module, names: list[str], layers: int) -> None:
        super().__init__()
        self.model, self.names, self.layers = model, names, layers

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given: dict[str, Any] = dict(zip(self.names, tensors, strict=False))
        past = tensors[len(self.names) :]
        if not past:
            result = self.model(**given, **({"use_cache": False} if self.layers else {}))
            return (_first(result),)
        cache = transformers.DynamicCache(
            [(past[2 * each], past[2 * each + 1]) for each in range(len(past) // 2)]
        )
        result = self.model(**given, past_key_values=cache, use_cache=True)
        kept = result.past_key_values.layers
        return (_first(result), *(part for layer in kept for part in (layer.keys, layer.values)))


def _first(result: Any) -> Tensor:
    return result if isinstance(result, Tensor) else result[0]


def _text(mask: bool = True, length: int = 5) -> dict[str, Tensor]:
    torch.manual_seed(3)
    given = {"input_ids": torch.randint(3, VOCAB, (2, length))}
    if mask:
        given["attention_mask"] = torch.ones(2, length, dtype=torch.int64)
        given["attention_mask"][1, :2] = 0
    return given


TEXT_DIMS = {"input_ids": {0: "batch", 1: "seq"}, "attention_mask": {0: "batch", 1: "total"}}


def _decoder(name: str, config: Any, make: Any, **blocks: int) -> Architecture:
    def model(attention: str) -> nn.Module:
        torch.manual_seed(0)
        config._attn_implementation = attention
        return make(config).eval()

    heads = getattr(config, "num_key_value_heads", None) or getattr(
        config, "num_attention_heads", HEADS
    )
    width = getattr(config, "head_dim", None) or HIDDEN // HEADS
    return Architecture(name, model, _text(), TEXT_DIMS, blocks, True, (heads, width))


def _common(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": HIDDEN, "intermediate_size": 96, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "vocab_size": VOCAB,
        "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        **more,
    }  # fmt: skip


def _rms(norms: int) -> dict[str, int]:
    return {"attention": LAYERS, "rope": 2 * LAYERS, "norm": norms, "activation": LAYERS}


def _decoders() -> list[Architecture]:
    t = transformers
    plain, qk = 2 * LAYERS + 1, 4 * LAYERS + 1
    return [
        _decoder("llama", t.LlamaConfig(**_common()), t.LlamaForCausalLM, **_rms(plain)),
        _decoder("qwen2", t.Qwen2Config(**_common()), t.Qwen2ForCausalLM, **_rms(plain)),
        _decoder(
            "qwen3", t.Qwen3Config(**_common(head_dim=16)), t.Qwen3ForCausalLM, **_rms(qk)
        ),
        _decoder(
            "mistral",
            t.MistralConfig(**_common(sliding_window=4)),
            t.MistralForCausalLM,
            **_rms(plain),
        ),
        _decoder("phi3", t.Phi3Config(**_common()), t.Phi3ForCausalLM, **_rms(plain)),
        _decoder(
            "gemma", t.GemmaConfig(**_common(head_dim=16)), t.GemmaForCausalLM, **_rms(plain)
        ),
        _decoder(
            "gemma2",
            t.Gemma2Config(**_common(head_dim=16, query_pre_attn_scalar=20, sliding_window=4)),
            t.Gemma2ForCausalLM,
            **_rms(4 * LAYERS + 1),
        ),
        _decoder(
            "gemma3",
            t.Gemma3TextConfig(
                **_common(
                    head_dim=16, query_pre_attn_scalar=20, sliding_window=4,
                    layer_types=["sliding_attention", "full_attention"],
                )
            ),
            t.Gemma3ForCausalLM,
            **_rms(6 * LAYERS + 1),
        ),
        _decoder(
            "gpt2",
            t.GPT2Config(
                n_embd=HIDDEN, n_layer=LAYERS, n_head=HEADS, vocab_size=VOCAB, n_positions=128
            ),
            t.GPT2LMHeadModel,
            attention=LAYERS, norm=plain, activation=LAYERS,
        ),
        _decoder(
            "opt",
            t.OPTConfig(
                hidden_size=HIDDEN, ffn_dim=96, num_hidden_layers=LAYERS, vocab_size=VOCAB,
                num_attention_heads=HEADS, max_position_embeddings=128, word_embed_proj_dim=HIDDEN,
                pad_token_id=1,
            ),
            t.OPTForCausalLM,
            attention=LAYERS, norm=plain,
        ),
        _decoder(
            "neox",
            t.GPTNeoXConfig(
                hidden_size=HIDDEN, intermediate_size=96, num_hidden_layers=LAYERS,
                num_attention_heads=HEADS, vocab_size=VOCAB, max_position_embeddings=128,
            ),
            t.GPTNeoXForCausalLM,
            attention=LAYERS, rope=2 * LAYERS, norm=plain, activation=LAYERS,
        ),
    ]  # fmt: skip


def _encoder(
    name: str,
    make: Callable[[str], nn.Module],
    inputs: dict[str, Tensor],
    dims: dict[str, dict[int, str]],
    **blocks: int,
) -> Architecture:
    def model(attention: str) -> nn.Module:
        torch.manual_seed(0)
        return make(attention).eval()

    return Architecture(name, model, inputs, dims, blocks)


def _vision(name: str, config: Any, make: Any, **blocks: int) -> Architecture:
    def model(attention: str) -> nn.Module:
        config._attn_implementation = attention
        return make(config)

    torch.manual_seed(3)
    pixels = {"pixel_values": torch.randn(2, 3, 16, 16)}
    return _encoder(name, model, pixels, {"pixel_values": {0: "batch"}}, **blocks)


def _towers() -> list[Architecture]:
    t = transformers
    common: dict[str, Any] = {
        "hidden_size": HIDDEN, "intermediate_size": 96, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "image_size": 16, "patch_size": 4,
    }  # fmt: skip
    dino: dict[str, Any] = {k: v for k, v in common.items() if k != "intermediate_size"}
    return [
        _vision(
            "vit", t.ViTConfig(**common), t.ViTModel, attention=LAYERS, norm=5, activation=LAYERS
        ),
        _vision(
            "clip-vision", t.CLIPVisionConfig(**common), t.CLIPVisionModel,
            attention=LAYERS, norm=5, activation=LAYERS,
        ),
        _vision(
            "siglip-vision", t.SiglipVisionConfig(**common), t.SiglipVisionModel,
            attention=LAYERS, norm=5, activation=LAYERS,
        ),
        _vision(
            "dinov2", t.Dinov2Config(**dino), t.Dinov2Model,
            attention=LAYERS, norm=5, activation=LAYERS,
        ),
        _vision(
            "blip-vision", t.BlipVisionConfig(**common), t.BlipVisionModel,
            attention=LAYERS, norm=5, activation=LAYERS,
        ),
    ]  # fmt: skip


def _maker(config: Any, make: Any) -> Callable[[str], nn.Module]:
    """Return what makes a model of a config for an attention implementation."""

    def model(attention: str) -> nn.Module:
        config._attn_implementation = attention
        return make(config)

    return model


def _texts() -> list[Architecture]:
    t = transformers
    bert = t.BertConfig(
        hidden_size=HIDDEN, intermediate_size=96, num_hidden_layers=LAYERS, vocab_size=VOCAB,
        num_attention_heads=HEADS, max_position_embeddings=128,
    )  # fmt: skip
    clip = t.CLIPTextConfig(**_common(eos_token_id=95))
    encoders: list[tuple[str, Any, Any, dict[str, int]]] = [
        ("bert", bert, t.BertModel, {"attention": LAYERS, "norm": 5, "activation": LAYERS}),
        ("clip-text", clip, t.CLIPTextModel, {"attention": LAYERS, "norm": 5, "activation": 2}),
    ]
    return [
        _encoder(name, _maker(config, make), _text(), TEXT_DIMS, **blocks)
        for name, config, make, blocks in encoders
    ]


def _pairs() -> list[Architecture]:
    """Encoders with decoders: attention of itself in both, and of the encoder in the second."""
    t = transformers
    text = _text()
    torch.manual_seed(4)
    target = torch.randint(3, VOCAB, (2, 4))
    texts = {**text, "decoder_input_ids": target}
    text_dims = {**TEXT_DIMS, "attention_mask": {0: "batch", 1: "seq"}}
    text_dims["decoder_input_ids"] = {0: "batch", 1: "target"}
    sound = {"input_features": torch.randn(2, 8, 32), "decoder_input_ids": target}
    sound_dims = {"input_features": {0: "batch"}, "decoder_input_ids": {0: "batch", 1: "target"}}
    common: dict[str, Any] = {
        "d_model": HIDDEN, "vocab_size": VOCAB, "encoder_layers": LAYERS, "decoder_layers": LAYERS,
        "encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS, "encoder_ffn_dim": 96,
        "decoder_ffn_dim": 96, "use_cache": False, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2, "decoder_start_token_id": 1,
    }  # fmt: skip
    t5 = t.T5Config(
        d_model=HIDDEN, d_kv=16, d_ff=96, num_layers=LAYERS, num_heads=HEADS, vocab_size=VOCAB,
        feed_forward_proj="gated-gelu", use_cache=False, decoder_start_token_id=0,
    )  # fmt: skip
    whisper = t.WhisperConfig(
        **common, num_mel_bins=8, max_source_positions=16, max_target_positions=32,
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    bart = t.BartConfig(**common, max_position_embeddings=64, forced_eos_token_id=None)
    blocks = {"attention": 3 * LAYERS, "norm": 5 * LAYERS + 2}
    return [
        _encoder(
            "t5", _maker(t5, t.T5ForConditionalGeneration), texts, text_dims,
            **blocks, activation=2 * LAYERS,
        ),
        _encoder(
            "bart", _maker(bart, t.BartForConditionalGeneration), texts, text_dims,
            **blocks, activation=2 * LAYERS,
        ),
        _encoder(
            "whisper", _maker(whisper, t.WhisperForConditionalGeneration), sound, sound_dims,
            **blocks, activation=2 * LAYERS + 2,
        ),
    ]  # fmt: skip


def _sections() -> list[Architecture]:
    """Text of Qwen2-VL, whose angles are put together from sections of three positions."""
    t = transformers
    config = t.Qwen2VLTextConfig(
        **_common(),
        rope_parameters={
            "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3],
        },
    )  # fmt: skip
    inputs = {**_text(), "position_ids": torch.randint(0, 9, (3, 2, 5))}
    dims = {**TEXT_DIMS, "attention_mask": {0: "batch", 1: "seq"}}
    dims["position_ids"] = {1: "batch", 2: "seq"}
    config.use_cache = False
    return [_encoder("qwen2-vl-text", _maker(config, t.Qwen2VLTextModel), inputs, dims, **_rms(5))]


def _later_decoders() -> list[Architecture]:
    """Decoders that are like the ones before but for a norm, a bias or a part of a rotation."""
    t = transformers
    plain, two = 2 * LAYERS + 1, LAYERS + 1
    gelus = {"attention": LAYERS, "rope": 2 * LAYERS, "activation": LAYERS}
    shared = _common(hidden_act="gelu_pytorch_tanh")
    return [
        _decoder("olmo", t.OlmoConfig(**_common()), t.OlmoForCausalLM, **_rms(plain)),
        _decoder("olmo2", t.Olmo2Config(**_common()), t.Olmo2ForCausalLM, **_rms(4 * LAYERS + 1)),
        _decoder("granite", t.GraniteConfig(**_common()), t.GraniteForCausalLM, **_rms(plain)),
        _decoder("cohere", t.CohereConfig(**_common()), t.CohereForCausalLM, **_rms(two)),
        _decoder(
            "smollm3", t.SmolLM3Config(**_common(no_rope_layers=[1, 1])), t.SmolLM3ForCausalLM,
            **_rms(plain),
        ),
        _decoder(
            "starcoder2", t.Starcoder2Config(**shared), t.Starcoder2ForCausalLM,
            **gelus, norm=plain,
        ),
        _decoder("stablelm", t.StableLmConfig(**_common()), t.StableLmForCausalLM, **_rms(plain)),
        _decoder("phi", t.PhiConfig(**_common()), t.PhiForCausalLM, **gelus, norm=two),
        _decoder(
            "glm4", t.Glm4Config(**_common(head_dim=16)), t.Glm4ForCausalLM,
            **_rms(4 * LAYERS + 1),
        ),
        _decoder(
            "gptj",
            t.GPTJConfig(
                n_embd=HIDDEN, n_layer=LAYERS, n_head=HEADS, vocab_size=VOCAB, n_positions=128,
                rotary_dim=8,
            ),
            t.GPTJForCausalLM,
            **gelus, norm=two,
        ),
    ]  # fmt: skip


def _later_encoders() -> list[Architecture]:
    """Encoders of text and of images like BERT and ViT."""
    t = transformers
    common: dict[str, Any] = {
        "hidden_size": HIDDEN, "intermediate_size": 96, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
    }  # fmt: skip
    text: dict[str, Any] = {**common, "vocab_size": VOCAB, "max_position_embeddings": 128}
    images: dict[str, Any] = {**common, "image_size": 16, "patch_size": 4}
    blocks = {"attention": LAYERS, "norm": 5, "activation": LAYERS}
    distil = t.DistilBertConfig(
        dim=HIDDEN, hidden_dim=96, n_layers=LAYERS, n_heads=HEADS, vocab_size=VOCAB
    )
    encoders: list[tuple[str, Any, Any]] = [
        ("roberta", t.RobertaConfig(**text), t.RobertaModel),
        ("electra", t.ElectraConfig(**text, embedding_size=HIDDEN), t.ElectraModel),
        ("albert", t.AlbertConfig(**text, embedding_size=HIDDEN), t.AlbertModel),
        ("distilbert", distil, t.DistilBertModel),
        ("mpnet", t.MPNetConfig(**text), t.MPNetModel),
    ]
    towers: list[tuple[str, Any, Any]] = [
        ("deit", t.DeiTConfig(**images), t.DeiTModel),
        ("ijepa", t.IJepaConfig(**images), t.IJepaModel),
        ("vit-msn", t.ViTMSNConfig(**images), t.ViTMSNModel),
    ]
    return [
        *(
            _encoder(name, _maker(config, make), _text(), TEXT_DIMS, **blocks)
            for name, config, make in encoders
        ),
        *(_vision(name, config, make, **blocks) for name, config, make in towers),
    ]


ARCHITECTURES: list[Architecture] = [
    *_decoders(),
    *_later_decoders(),
    *_later_encoders(),
    *_towers(),
    *_texts(),
    *_pairs(),
    *_sections(),
]
