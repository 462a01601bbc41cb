"""Decoders: experts, attention by latent vectors or with ALiBi, and states in its place."""

from __future__ import annotations

from typing import Any

import transformers as t
from architectures.making import (
    HEADS,
    HIDDEN,
    LAYERS,
    TEXT_DIMS,
    VOCAB,
    Family,
    builder,
    language,
    text,
)

# fmt: off


def decoders_families() -> list[Family]:
    moe = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    plain: list[tuple[str, Any, Any]] = [
        ("mixtral", t.MixtralConfig(**language(num_local_experts=4)), t.MixtralForCausalLM),
        (
            "qwen2-moe",
            t.Qwen2MoeConfig(**language(**moe, shared_expert_intermediate_size=24)),
            t.Qwen2MoeForCausalLM,
        ),
        (
            "olmoe", t.OlmoeConfig(**language(num_experts=4, num_experts_per_tok=2)),
            t.OlmoeForCausalLM,
        ),
        (
            "gpt-oss",
            t.GptOssConfig(
                **language(head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=4)
            ),
            t.GptOssForCausalLM,
        ),
        (
            "deepseek-v3",
            t.DeepseekV3Config(
                **language(
                    num_key_value_heads=HEADS, n_routed_experts=4, num_experts_per_tok=2,
                    moe_intermediate_size=24, n_group=2, topk_group=1, kv_lora_rank=16,
                    q_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8,
                    first_k_dense_replace=1,
                )
            ),
            t.DeepseekV3ForCausalLM,
        ),
        (
            "deepseek-v2",
            t.DeepseekV2Config(
                **language(
                    num_key_value_heads=HEADS, n_routed_experts=4, num_experts_per_tok=2,
                    moe_intermediate_size=24, kv_lora_rank=16, q_lora_rank=None,
                    qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8, first_k_dense_replace=1,
                )
            ),
            t.DeepseekV2ForCausalLM,
        ),
        (
            "granitemoe",
            t.GraniteMoeConfig(**language(num_local_experts=4, num_experts_per_tok=2)),
            t.GraniteMoeForCausalLM,
        ),
        (
            "falcon-alibi",
            t.FalconConfig(
                hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
                vocab_size=VOCAB, alibi=True, multi_query=False, bias=True,
            ),
            t.FalconForCausalLM,
        ),
        (
            "falcon",
            t.FalconConfig(
                hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
                vocab_size=VOCAB, new_decoder_architecture=True, num_kv_heads=2,
            ),
            t.FalconForCausalLM,
        ),
        (
            "bloom",
            t.BloomConfig(hidden_size=HIDDEN, n_layer=LAYERS, n_head=HEADS, vocab_size=VOCAB),
            t.BloomForCausalLM,
        ),
        (
            "mpt",
            t.MptConfig(
                d_model=HIDDEN, n_heads=HEADS, n_layers=LAYERS, vocab_size=VOCAB, max_seq_len=64
            ),
            t.MptForCausalLM,
        ),
        (
            "gemma3n-text",
            t.Gemma3nTextConfig(
                **language(
                    head_dim=8, vocab_size_per_layer_input=VOCAB, hidden_size_per_layer_input=8,
                    altup_num_inputs=2, laurel_rank=8, sliding_window=4, num_kv_shared_layers=0,
                    layer_types=["sliding_attention", "full_attention"],
                    intermediate_size=[48, 48], activation_sparsity_pattern=[0.9, 0.0],
                )
            ),
            t.Gemma3nForCausalLM,
        ),
        ("nemotron", t.NemotronConfig(**language(head_dim=8)), t.NemotronForCausalLM),
        (
            "exaone4",
            t.Exaone4Config(**language(sliding_window=4, sliding_window_pattern=2)),
            t.Exaone4ForCausalLM,
        ),
        (
            "lfm2",
            t.Lfm2Config(**language(layer_types=["conv", "full_attention"], block_ff_dim=48)),
            t.Lfm2ForCausalLM,
        ),
        (
            "qwen3-next",
            t.Qwen3NextConfig(
                **language(
                    head_dim=8, **moe, shared_expert_intermediate_size=24, decoder_sparse_step=1,
                    linear_num_value_heads=4, linear_num_key_heads=2, linear_key_head_dim=8,
                    linear_value_head_dim=8,
                    layer_types=["linear_attention", "full_attention"],
                )
            ),
            t.Qwen3NextForCausalLM,
        ),
        (
            "mamba",
            t.MambaConfig(
                hidden_size=HIDDEN, num_hidden_layers=LAYERS, vocab_size=VOCAB, state_size=4
            ),
            t.MambaForCausalLM,
        ),
        (
            "mamba2",
            t.Mamba2Config(
                hidden_size=HIDDEN, num_hidden_layers=LAYERS, vocab_size=VOCAB, state_size=4,
                num_heads=8, head_dim=8, n_groups=2, chunk_size=4,
            ),
            t.Mamba2ForCausalLM,
        ),
        (
            "bamba",
            t.BambaConfig(
                **language(
                    mamba_n_heads=8, mamba_d_head=8, mamba_n_groups=1, mamba_d_state=4,
                    mamba_chunk_size=4, attn_layer_indices=[1],
                )
            ),
            t.BambaForCausalLM,
        ),
        (
            "rwkv",
            t.RwkvConfig(
                hidden_size=HIDDEN, num_hidden_layers=LAYERS, vocab_size=VOCAB, context_length=64
            ),
            t.RwkvForCausalLM,
        ),
        (
            "recurrent-gemma",
            t.RecurrentGemmaConfig(
                hidden_size=HIDDEN, intermediate_size=48, num_hidden_layers=3, vocab_size=VOCAB,
                num_attention_heads=HEADS, head_dim=8, attention_window_size=4, lru_width=HIDDEN,
            ),
            t.RecurrentGemmaForCausalLM,
        ),
    ]  # fmt: skip
    bare = {"mamba", "mamba2", "rwkv", "recurrent-gemma"}
    return [
        Family(
            name, builder(config, make),
            (lambda size: text(size, False)) if name in bare else text, TEXT_DIMS,
        )
        for name, config, make in plain
    ]  # fmt: skip
