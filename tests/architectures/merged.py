"""Models that put images in the place of tokens, whole, and their parts."""

from __future__ import annotations

from typing import Any

import torch
import transformers as t
from architectures.making import (
    BATCH,
    HEADS,
    HIDDEN,
    LAYERS,
    TEXT_DIMS,
    VOCAB,
    Family,
    Inputs,
    builder,
    language,
    text,
    tower,
)
from torch import Tensor, nn

# fmt: off


IMAGE = 90  # the token that stands for an image's parts


def _merged(tokens: int, side: int, token: int = IMAGE, **more: Tensor) -> Any:
    """Return inputs of a model that puts an image's parts in the place of tokens."""

    def inputs(size: int) -> Inputs:
        given = text(size)
        batch = len(given["input_ids"])
        ids = torch.cat([torch.full((batch, tokens), token), given["input_ids"]], 1)
        mask = torch.ones_like(ids)
        mask[1, -1] = 0
        return {
            "input_ids": ids, "attention_mask": mask,
            "pixel_values": torch.randn(batch, 3, side, side), **more,
        }  # fmt: skip

    return inputs


MERGED = {**TEXT_DIMS, **BATCH}


def _llama(**more: Any) -> Any:
    return t.LlamaConfig(**language(**more))


def whole_families() -> list[Family]:
    siglip = t.SiglipVisionConfig(**tower())
    clip = t.CLIPVisionConfig(**tower())
    gemma3 = t.Gemma3Config(
        text_config=t.Gemma3TextConfig(
            **language(head_dim=8, sliding_window=4,
                  layer_types=["sliding_attention", "full_attention"])
        ),
        vision_config=siglip, mm_tokens_per_image=4, image_token_index=IMAGE,
        boi_token_index=91, eoi_token_index=92, image_token_id=IMAGE,
    )
    qwen25 = t.Qwen2_5_VLVisionConfig(
        depth=2, hidden_size=HIDDEN, intermediate_size=48, num_heads=4, out_hidden_size=HIDDEN,
        patch_size=2, window_size=8, fullatt_block_indexes=[1],
    )
    qwen3 = t.Qwen3VLVisionConfig(
        depth=2, hidden_size=HIDDEN, intermediate_size=48, num_heads=4, out_hidden_size=HIDDEN,
        patch_size=2, num_position_embeddings=16, deepstack_visual_indexes=[0, 1],
    )
    glm = t.Glm4vVisionConfig(
        depth=2, hidden_size=HIDDEN, intermediate_size=48, num_heads=4, out_hidden_size=HIDDEN,
        patch_size=2, image_size=16,
    )
    qwen25_tower = (
        t.models.qwen2_5_vl.modeling_qwen2_5_vl.Qwen2_5_VisionTransformerPretrainedModel
    )
    grid = torch.tensor([[1, 8, 8]])
    windowed = lambda model, pixel_values: model(pixel_values, grid_thw=grid)  # noqa: E731

    def patches(size: int) -> Inputs:
        torch.manual_seed(size)
        return {"pixel_values": torch.randn(64, 3 * 2 * 2 * 2)}

    qformer = t.InstructBlipQFormerConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=48, max_position_embeddings=64, encoder_hidden_size=HIDDEN,
        cross_attention_frequency=2,
    )
    blip2_vision: dict[str, Any] = tower()
    blip2 = t.Blip2Config(
        vision_config=t.Blip2VisionConfig(**blip2_vision),
        qformer_config=t.Blip2QFormerConfig(
            hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
            intermediate_size=48, encoder_hidden_size=HIDDEN, vocab_size=VOCAB,
        ),
        text_config=t.OPTConfig(
            hidden_size=HIDDEN, ffn_dim=48, num_hidden_layers=LAYERS, vocab_size=VOCAB,
            num_attention_heads=HEADS, max_position_embeddings=64, word_embed_proj_dim=HIDDEN,
        ),
        num_query_tokens=4, image_token_index=IMAGE,
    )
    mllama_text = t.MllamaConfig(
        vision_config={
            "hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_global_layers": 1, "attention_heads": 4, "image_size": 16, "patch_size": 8,
            "vision_output_dim": HIDDEN * 2, "intermediate_layers_indices": [1],
            "max_num_tiles": 2, "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
        },
        text_config={
            **language(), "cross_attention_layers": [1],
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        image_token_index=IMAGE,
    )

    def mllama(size: int) -> Inputs:
        given = text(size)
        batch, length = given["input_ids"].shape
        return {
            **given, "pixel_values": torch.randn(batch, 1, 2, 3, 16, 16),
            "aspect_ratio_ids": torch.ones(batch, 1, dtype=torch.int64) * 2,
            "aspect_ratio_mask": torch.ones(batch, 1, 2, dtype=torch.int64),
            "cross_attention_mask": torch.ones(batch, length, 1, 2, dtype=torch.int64),
        }

    mllama_dims = {
        **MERGED, "aspect_ratio_ids": {0: "batch"}, "aspect_ratio_mask": {0: "batch"},
        "cross_attention_mask": {0: "batch", 1: "seq"},
    }
    kosmos = t.Kosmos2Config(
        text_config={
            "vocab_size": VOCAB, "max_position_embeddings": 64, "embed_dim": HIDDEN, "layers": 2,
            "ffn_dim": 48, "attention_heads": 4,
        },
        vision_config=tower(), latent_query_num=4,
    )

    def kosmos_inputs(size: int) -> Inputs:
        given = _merged(4, 16)(size)
        spots = torch.zeros_like(given["input_ids"])
        spots[:, :4] = 1
        return {
            "pixel_values": given["pixel_values"], "input_ids": given["input_ids"],
            "image_embeds_position_mask": spots, "attention_mask": given["attention_mask"],
        }

    florence = t.Florence2Config(
        vision_config={
            "embed_dim": [8, 16, 16, 32], "num_heads": [1, 2, 2, 4], "num_groups": [1, 2, 2, 4],
            "depths": [1, 1, 1, 1], "window_size": 2, "projection_dim": HIDDEN,
            "patch_size": [7, 3, 3, 3],
        },
        text_config={
            "model_type": "bart", "d_model": HIDDEN, "vocab_size": VOCAB, "encoder_layers": 1,
            "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
            "use_cache": False,
        },
        image_token_id=IMAGE,
    )

    def florence_inputs(size: int) -> Inputs:
        given = _merged(5, 64)(size)
        torch.manual_seed(size)
        given["decoder_input_ids"] = torch.randint(3, 80, (2 + size, 4 + size))
        return given

    internvl = t.InternVLConfig(
        vision_config=t.InternVLVisionConfig(
            **{**tower(), "image_size": [16, 16], "patch_size": [4, 4]}
        ),
        text_config=t.Qwen2Config(**language()), image_token_id=IMAGE, image_seq_length=4,
    )
    idefics = t.Idefics3Config(
        vision_config=t.models.idefics3.Idefics3VisionConfig(**tower()),
        text_config=_llama(), scale_factor=2, image_token_id=IMAGE,
    )
    smolvlm = t.SmolVLMConfig(
        vision_config=t.SmolVLMVisionConfig(**tower()), text_config=_llama(), scale_factor=2,
        image_token_id=IMAGE,
    )

    def tiled(size: int) -> Inputs:
        given = _merged(4, 16)(size)
        given["pixel_values"] = given["pixel_values"][:, None]
        return given

    llava = t.LlavaConfig(vision_config=clip, text_config=_llama(), image_token_index=IMAGE,
                          vision_feature_layer=-2)
    paligemma = t.PaliGemmaConfig(
        vision_config=siglip, text_config=t.GemmaConfig(**language(head_dim=8)),
        image_token_index=IMAGE, projection_dim=HIDDEN,
    )
    mistral3 = t.Mistral3Config(
        vision_config=t.PixtralVisionConfig(**tower(head_dim=8)),
        text_config=t.MistralConfig(**language(head_dim=8)), image_token_index=IMAGE,
        spatial_merge_size=2, vision_feature_layer=-1,
    )
    janus = t.JanusConfig(
        text_config=_llama(), vision_config=t.models.janus.JanusVisionConfig(
            **tower(projection_dim=HIDDEN, num_hidden_layers=2)
        ),
        vq_config={
            "embed_dim": 8, "num_embeddings": 16, "latent_channels": 8, "base_channels": 32,
            "channel_multiplier": [1, 1], "num_res_blocks": 1, "projection_dim": HIDDEN,
            "image_token_embed_dim": HIDDEN,
        },
        image_token_id=IMAGE,
    )
    aria = t.AriaTextConfig(**language(moe_num_experts=4, moe_topk=2, moe_num_shared_experts=1))
    ovis = t.Ovis2Config(
        vision_config=t.models.ovis2.Ovis2VisionConfig(**tower(vocab_size=40, hidden_stride=2,
                                         num_visual_indicator_tokens=5)),
        text_config=t.Qwen2Config(**language()), image_token_id=IMAGE, hidden_size=HIDDEN,
        visual_indicator_token_ids=[80, 81, 82, 83, 84],
    )
    got = t.GotOcr2Config(
        vision_config={
            "hidden_size": HIDDEN, "output_channels": 16, "num_hidden_layers": 2,
            "num_attention_heads": 4, "image_size": 64, "patch_size": 4, "window_size": 3,
            "global_attn_indexes": [1], "mlp_dim": 48,
        },
        text_config=t.Qwen2Config(**language()), image_token_id=IMAGE, image_seq_length=16,
    )
    tiles = torch.tensor([[16, 16]] * 2)

    def anyres(model: nn.Module, **given: Tensor) -> Any:
        return model(**given, image_sizes=tiles)

    llava_next = t.LlavaNextConfig(
        vision_config=clip, text_config=_llama(), image_token_index=IMAGE,
        image_grid_pinpoints=[[16, 32], [16, 16], [32, 16]], vision_feature_layer=-2,
    )

    def anyres_inputs(size: int) -> Inputs:
        torch.manual_seed(size)
        ids = torch.randint(3, 80, (2, 44 + 3 * size))
        ids[:, :36] = IMAGE
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids),
                "pixel_values": torch.randn(2, 2, 3, 16, 16)}

    anyres_dims = {"input_ids": {1: "seq"}, "attention_mask": {1: "seq"}, "pixel_values": {}}
    gen = "ForConditionalGeneration"
    merged: list[tuple[str, Any, Any, Any]] = [
        ("gemma3-vlm", gemma3, getattr(t, "Gemma3" + gen), _merged(4, 16)),
        ("internvl", internvl, getattr(t, "InternVL" + gen), _merged(4, 16)),
        ("idefics3", idefics, getattr(t, "Idefics3" + gen), tiled),
        ("smolvlm", smolvlm, getattr(t, "SmolVLM" + gen), tiled),
        ("llava", llava, getattr(t, "Llava" + gen), _merged(16, 16)),
        ("paligemma", paligemma, getattr(t, "PaliGemma" + gen), _merged(16, 16)),
        ("janus", janus, getattr(t, "Janus" + gen), _merged(16, 16)),
        ("ovis2", ovis, getattr(t, "Ovis2" + gen), _merged(4, 16)),
        ("got-ocr2", got, getattr(t, "GotOcr2" + gen), _merged(16, 64)),
    ]
    return [
        *(
            Family(name, builder(config, make), given, MERGED)
            for name, config, make, given in merged
        ),
        Family("blip2", builder(blip2, t.Blip2ForConditionalGeneration), _merged(4, 16), MERGED),
        Family(
            "llava-next", builder(llava_next, t.LlavaNextForConditionalGeneration, anyres),
            anyres_inputs, anyres_dims,
        ),
        Family(
            "mistral3",
            builder(mistral3, t.Mistral3ForConditionalGeneration,
                   lambda model, **given: model(**given, image_sizes=tiles)),
            lambda size: {
                key: value[:2] for key, value in _merged(4, 16)(size).items()
            },
            {"input_ids": {1: "seq"}, "attention_mask": {1: "seq"}, "pixel_values": {}},
        ),
        Family("mllama", builder(mllama_text, t.MllamaForConditionalGeneration), mllama,
               mllama_dims),
        Family(
            "kosmos2", builder(kosmos, t.Kosmos2ForConditionalGeneration), kosmos_inputs,
            {**MERGED, "image_embeds_position_mask": {0: "batch", 1: "seq"}},
        ),
        Family(
            "florence2", builder(florence, t.Florence2ForConditionalGeneration), florence_inputs,
            {**MERGED, "decoder_input_ids": {0: "batch", 1: "target"}},
        ),
        Family(
            "instructblip-qformer", builder(qformer, t.InstructBlipQFormerModel),
            lambda size: {
                **text(size), "query_embeds": torch.randn(2 + size, 4, HIDDEN),
                "attention_mask": torch.ones(2 + size, 4 + (6, 9)[size], dtype=torch.int64),
                "encoder_hidden_states": torch.randn(2 + size, 7 + size, HIDDEN),
            },
            {
                **TEXT_DIMS, "attention_mask": {0: "batch", 1: "total"},
                "query_embeds": {0: "batch"}, "encoder_hidden_states": {0: "batch", 1: "parts"},
            },
        ),
        Family("qwen2.5-vl-vision",
               builder(qwen25, qwen25_tower, windowed),
               patches, {"pixel_values": {}}),
        Family("qwen3-vl-vision", builder(qwen3, t.Qwen3VLVisionModel, windowed), patches,
               {"pixel_values": {}}),
        Family("glm4v-vision", builder(glm, t.Glm4vVisionModel, windowed), patches,
               {"pixel_values": {}}),
        Family("aria-text", builder(aria, t.AriaTextForCausalLM), text, TEXT_DIMS),
        Family(
            "pixtral-vision",
            builder(t.PixtralVisionConfig(**tower(head_dim=8)), t.PixtralVisionModel),
            lambda size: {"pixel_values": torch.randn(1, 3, 16 + 8 * size, 16)},
            {"pixel_values": {2: "height"}},
        ),
    ]  # fmt: skip
