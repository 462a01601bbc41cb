"""Families of unusual operators and shapes: detectors, video, sparse attention, series, codecs."""

from __future__ import annotations

from typing import Any

import torch
import transformers as t
from architectures.making import (
    BATCH,
    HEADS,
    HIDDEN,
    LAYERS,
    SIDES,
    SOUND,
    TEXT_DIMS,
    VOCAB,
    Family,
    Inputs,
    builder,
    language,
    pixels,
    sound,
    text,
    tower,
)

# fmt: off


def _bare(size: int) -> Inputs:
    return text(size, False)


def _video(size: int) -> Inputs:
    return {"pixel_values": torch.randn(2 + size, 4, 3, 16, 16)}


def _frames(size: int) -> Inputs:
    return {"pixel_values_videos": torch.randn(2 + size, 4, 3, 16, 16)}


def _patches(size: int) -> Inputs:
    torch.manual_seed(5 + size)
    grid = torch.tensor([[2, 3], [3, 2], [2, 2]])[: 2 + size]
    mask = (torch.arange(6)[None] < grid.prod(1)[:, None]).int()
    return {"pixel_values": torch.randn(2 + size, 6, 48), "pixel_attention_mask": mask,
            "spatial_shapes": grid}


def _flattened(size: int) -> Inputs:
    torch.manual_seed(5 + size)
    places = torch.arange(1, 7 + 3 * size)
    places = torch.stack(((places + 2) // 3, (places + 2) % 3 + 1), -1).float()
    made = torch.cat((places.expand(2 + size, -1, -1), torch.randn(2 + size, 6 + 3 * size, 48)), -1)
    return {"flattened_patches": made}


def _series(size: int) -> Inputs:
    return {"past_values": torch.randn(2 + size, 16, 3)}


def _decision(size: int) -> Inputs:
    b, n = (2, 4 + size) if not size else (3, 6)
    return {"states": torch.randn(b, n, 5), "actions": torch.randn(b, n, 3),
            "returns_to_go": torch.randn(b, n, 1), "timesteps": torch.arange(n).expand(b, n),
            "attention_mask": torch.ones(b, n)}


def _pair(size: int) -> Inputs:
    return {**text(size), "pixel_values": torch.randn(2 + size, 3, 16, 16)}


def _boxes(size: int) -> Inputs:
    given = text(size, False)["input_ids"]
    low = torch.randint(0, 40, (*given.shape, 2))
    return {"input_ids": given, "bbox": torch.cat((low, low + torch.randint(0, 40, low.shape)), -1),
            "pixel_values": torch.randn(2 + size, 3, 16, 16)}


def _decoded(size: int) -> Inputs:
    given = text(size)
    return {**given, "decoder_input_ids": torch.randint(3, VOCAB - 8, (2 + size, 4 + size))}


DECODED: dict[str, dict[int, str]] = {
    **TEXT_DIMS, "decoder_input_ids": {0: "batch", 1: "written"}
}
LEN: dict[int, str] = {0: "batch", 1: "seq"}


def _seeing() -> list[tuple[str, Any, Any, Any, Any]]:
    small: dict[str, Any] = {
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "hidden_size": HIDDEN,
        "intermediate_size": 48,
    }
    resnet = t.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    plain = t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1],
                           layer_type="basic", out_features=["stage2"])
    detr: dict[str, Any] = {
        "d_model": HIDDEN, "encoder_layers": 1, "decoder_layers": 2, "num_queries": 5,
        "encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS,
        "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_labels": 4,
    }
    pose = t.VitPoseBackboneConfig(
        image_size=[32, 32], patch_size=[8, 8], hidden_size=HIDDEN, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, mlp_ratio=2, out_indices=[2])
    return [
        ("rt-detr", t.RTDetrConfig(
            **detr, backbone_config=resnet, encoder_hidden_dim=HIDDEN,
            encoder_in_channels=[16, 16, 16], decoder_in_channels=[HIDDEN] * 3),
         t.RTDetrForObjectDetection, pixels(64, True), SIDES),
        ("deformable-detr", t.DeformableDetrConfig(
            **detr, backbone_config=resnet, backbone=None, use_timm_backbone=False,
            use_pretrained_backbone=False, num_feature_levels=3, two_stage=False),
         t.DeformableDetrForObjectDetection, pixels(64), BATCH),
        ("conditional-detr", t.ConditionalDetrConfig(
            **detr, backbone_config=plain, backbone=None, use_timm_backbone=False,
            use_pretrained_backbone=False),
         t.ConditionalDetrForObjectDetection, pixels(32), BATCH),
        ("yolos", t.YolosConfig(**small, image_size=[16, 16], patch_size=4, num_detection_tokens=3),
         t.YolosForObjectDetection, pixels(16), BATCH),
        ("vitpose", t.VitPoseConfig(backbone_config=pose, scale_factor=4, num_labels=4),
         t.VitPoseForPoseEstimation, pixels(32), BATCH),
        ("superpoint", t.SuperPointConfig(
            encoder_hidden_sizes=[8, 8, 16, 16], decoder_hidden_size=16,
            descriptor_decoder_dim=16), t.SuperPointForKeypointDetection,
         lambda size: {"pixel_values": torch.randn(1, 3, 32 + 16 * size, 32)},
         {"pixel_values": {2: "height"}}),
        ("focalnet", t.FocalNetConfig(
            image_size=32, patch_size=2, embed_dim=8, hidden_sizes=[8, 16], depths=[1, 1],
            focal_levels=[2, 2], focal_windows=[3, 3], use_layerscale=True,
            normalize_modulator=True), t.FocalNetModel, pixels(32, True), SIDES),
        ("cvt", t.CvtConfig(
            patch_sizes=[7, 3, 3], embed_dim=[8, 16, 16], num_heads=[1, 2, 2], depth=[1, 1, 3]),
         t.CvtModel, pixels(32, True), SIDES),
        ("pvt-v2", t.PvtV2Config(
            image_size=32, hidden_sizes=[8, 16, 16, 32], depths=[1] * 4,
            num_attention_heads=[1, 2, 2, 4], mlp_ratios=[2] * 4, linear_attention=True),
         t.PvtV2Model, pixels(64), BATCH),
        ("swin2sr", t.Swin2SRConfig(
            image_size=16, embed_dim=16, depths=[2], num_heads=[2], window_size=4),
         t.Swin2SRForImageSuperResolution, pixels(16, True), SIDES),
        ("siglip2-naflex", t.Siglip2VisionConfig(**small, patch_size=4, num_patches=9),
         t.Siglip2VisionModel, _patches,
         {k: {0: "batch"} for k in ("pixel_values", "pixel_attention_mask", "spatial_shapes")}),
        ("pix2struct-vision", t.Pix2StructVisionConfig(
            hidden_size=HIDDEN, patch_embed_hidden_size=48, d_ff=48, d_kv=8, num_hidden_layers=2,
            num_attention_heads=HEADS, seq_len=16, initializer_range=0.02),
         t.Pix2StructVisionModel, _flattened, {"flattened_patches": LEN}),
        ("videomae", t.VideoMAEConfig(**tower(num_frames=4)), t.VideoMAEForVideoClassification,
         _video, BATCH),
        ("timesformer", t.TimesformerConfig(**tower(num_frames=4)), t.TimesformerModel,
         _video, BATCH),
        ("vjepa2", t.VJEPA2Config(
            **{k: v for k, v in small.items() if k != "intermediate_size"}, crop_size=16,
            patch_size=4, frames_per_clip=4, pred_hidden_size=24, pred_num_attention_heads=2,
            pred_num_hidden_layers=1), t.VJEPA2ForVideoClassification, _frames,
         {"pixel_values_videos": {0: "batch"}}),
        ("vilt", t.ViltConfig(**tower(vocab_size=VOCAB)), t.ViltModel, _pair,
         {**TEXT_DIMS, **BATCH}),
        ("layoutlmv3", t.LayoutLMv3Config(
            **small, vocab_size=VOCAB, max_position_embeddings=64, input_size=16, patch_size=4,
            coordinate_size=6, shape_size=4, max_2d_position_embeddings=128, rel_pos_bins=8,
            rel_2d_pos_bins=8), t.LayoutLMv3Model, _boxes,
         {"input_ids": LEN, "bbox": LEN, **BATCH}),
    ]


def _reading() -> list[tuple[str, Any, Any, Any, Any]]:
    common: dict[str, Any] = {
        "hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "vocab_size": VOCAB, "max_position_embeddings": 64,
    }
    five: dict[str, Any] = {
        "vocab_size": VOCAB, "d_model": HIDDEN, "d_kv": 8, "d_ff": 48, "num_layers": 2,
        "num_heads": HEADS, "num_decoder_layers": 2, "use_cache": False,
    }
    return [
        ("bigbird", t.BigBirdConfig(**common, attention_type="original_full"), t.BigBirdModel,
         text, TEXT_DIMS),
        ("canine", t.CanineConfig(
            **{k: v for k, v in common.items() if k != "vocab_size"}, num_hash_functions=4,
            num_hash_buckets=32, local_transformer_stride=8), t.CanineModel,
         lambda size: {"input_ids": torch.randint(3, 900, (2 + size, 16))},
         {"input_ids": {0: "batch"}}),
        ("reformer", t.ReformerConfig(
            attn_layers=["local", "lsh"], attention_head_size=8, hidden_size=HIDDEN,
            num_attention_heads=HEADS, feed_forward_size=48, axial_pos_shape=[4, 4],
            axial_pos_embds_dim=[16, 16], local_attn_chunk_length=4, lsh_attn_chunk_length=4,
            num_buckets=4, hash_seed=1, vocab_size=VOCAB, max_position_embeddings=16),
         t.ReformerModel, lambda size: {"input_ids": torch.randint(3, VOCAB, (2 + size, 16))},
         {"input_ids": {0: "batch"}}),
        ("yoso", t.YosoConfig(**common, use_expectation=True, use_fast_hash=False), t.YosoModel,
         text, TEXT_DIMS),
        ("longt5", t.LongT5Config(
            **five, local_radius=3, global_block_size=2,
            encoder_attention_type="transient-global"),
         t.LongT5ForConditionalGeneration, _decoded, DECODED),
        ("switch", t.SwitchTransformersConfig(
            **five, num_experts=2, expert_capacity=64, num_sparse_encoder_layers=1,
            num_sparse_decoder_layers=1),
         t.SwitchTransformersForConditionalGeneration, _decoded, DECODED),
        ("prophetnet", t.ProphetNetConfig(
            vocab_size=VOCAB, hidden_size=HIDDEN, encoder_ffn_dim=48, decoder_ffn_dim=48,
            num_encoder_layers=1, num_decoder_layers=1, num_encoder_attention_heads=HEADS,
            num_decoder_attention_heads=HEADS, max_position_embeddings=64),
         t.ProphetNetModel, _decoded, DECODED),
        ("perceiver", t.PerceiverConfig(
            num_latents=5, d_latents=16, d_model=16, num_self_attends_per_block=1,
            num_self_attention_heads=2, num_cross_attention_heads=2, vocab_size=VOCAB,
            max_position_embeddings=16), t.PerceiverForMaskedLM,
         lambda size: {"inputs": torch.randint(3, VOCAB, (2 + size, 16))},
         {"inputs": {0: "batch"}}),
        ("recurrent-gemma", t.RecurrentGemmaConfig(
            **{k: v for k, v in language(lru_width=HIDDEN, attention_window_size=4).items()
               if k != "max_position_embeddings"}, block_types=["recurrent", "attention"]),
         t.RecurrentGemmaForCausalLM, text, TEXT_DIMS),
        ("jetmoe", t.JetMoeConfig(**{k: v for k, v in language(
            kv_channels=8, num_local_experts=4, num_experts_per_tok=2).items()
            if k != "num_attention_heads"}), t.JetMoeForCausalLM, text, TEXT_DIMS),
        ("cohere2", t.Cohere2Config(**language(sliding_window=4)), t.Cohere2ForCausalLM,
         text, TEXT_DIMS),
        ("persimmon", t.PersimmonConfig(**{k: v for k, v in language().items()
         if k != "num_key_value_heads"}), t.PersimmonForCausalLM, text, TEXT_DIMS),
        ("ernie45-moe", t.Ernie4_5_MoeConfig(**language(
            moe_intermediate_size=24, moe_k=2, moe_num_experts=4, moe_num_shared_experts=1,
            moe_layer_start_index=0, moe_layer_end_index=1)),
         t.Ernie4_5_MoeForCausalLM, text, TEXT_DIMS),
        ("falcon-h1", t.FalconH1Config(**language(
            mamba_d_ssm=HIDDEN, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8,
            mamba_chunk_size=4)), t.FalconH1ForCausalLM, text, TEXT_DIMS),
    ]


def _hearing() -> list[tuple[str, Any, Any, Any, Any]]:
    informer: dict[str, Any] = {
        "num_input_channels": 3, "context_length": 16, "patch_length": 4, "patch_stride": 2,
        "d_model": HIDDEN, "num_attention_heads": HEADS, "ffn_dim": 48, "num_hidden_layers": 2,
        "prediction_length": 4,
    }
    return [
        ("patchtst", t.PatchTSTConfig(**informer, channel_attention=True, loss="mse"),
         t.PatchTSTForPrediction, _series, {"past_values": {0: "batch"}}),
        ("decision", t.DecisionTransformerConfig(
            state_dim=5, act_dim=3, hidden_size=HIDDEN, max_ep_len=32, n_head=HEADS, n_layer=2,
            n_positions=64), t.DecisionTransformerModel, _decision,
         dict.fromkeys(("states", "actions", "returns_to_go", "timesteps", "attention_mask"), LEN)),
        ("sew", t.SEWConfig(
            vocab_size=32, hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=HEADS,
            intermediate_size=48, conv_dim=[16] * 3, conv_stride=[5, 2, 2], conv_kernel=[10, 3, 2],
            num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4), t.SEWModel,
         sound(800), SOUND),
        ("dac", t.DacConfig(
            encoder_hidden_size=8, downsampling_ratios=[2, 4], decoder_hidden_size=32,
            n_codebooks=2, codebook_size=16, codebook_dim=4), t.DacModel,
         lambda size: {"input_values": torch.randn(2 + size, 1, 320 + 160 * size)},
         {"input_values": {0: "batch", 2: "samples"}}),
        ("univnet", t.UnivNetConfig(
            model_in_channels=8, model_hidden_channels=8, num_mel_bins=6,
            kernel_predictor_hidden_channels=8, resblock_stride_sizes=[2, 2, 2],
            resblock_dilation_sizes=[[1, 3]] * 3), t.UnivNetModel,
         lambda size: {"input_features": torch.randn(2 + size, 10 + 4 * size, 6),
                       "noise_sequence": torch.randn(2 + size, 10 + 4 * size, 8)},
         {k: {0: "batch", 1: "frames"} for k in ("input_features", "noise_sequence")}),
    ]


def unusual_families() -> list[Family]:
    """Return them."""
    return [
        Family(name, builder(config, make), given, dims)
        for kinds in (_seeing, _reading, _hearing)
        for name, config, make, given, dims in kinds()
    ]
