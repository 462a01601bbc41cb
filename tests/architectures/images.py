"""Models that see: of transformers and of timm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as t
from architectures.making import (
    BATCH,
    HEADS,
    HIDDEN,
    LAYERS,
    SIDES,
    VOCAB,
    Family,
    builder,
    pixels,
    tower,
)
from torch import nn

# fmt: off


def images_families() -> list[Family]:
    swin: dict[str, Any] = {
        "image_size": 16, "patch_size": 2, "embed_dim": 16, "depths": [2, 2],
        "num_heads": [2, 4], "window_size": 4,
    }  # fmt: skip
    sam = t.SamVisionConfig(
        hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS, image_size=32,
        patch_size=4, output_channels=16, window_size=3, global_attn_indexes=[1], mlp_dim=48,
        use_rel_pos=True,
    )
    owl = t.Owlv2Config(
        text_config={
            "hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS, "vocab_size": VOCAB, "max_position_embeddings": 16,
        },
        vision_config=tower(), projection_dim=HIDDEN,
    )
    resnet = t.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic",
        out_features=["stage2"],
    )
    detr = t.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
        backbone_config=resnet, d_model=HIDDEN, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=HEADS, decoder_attention_heads=HEADS, encoder_ffn_dim=48,
        decoder_ffn_dim=48, num_queries=5, num_labels=4,
    )
    kinds: list[tuple[str, Any, Any, Any, Any]] = [
        ("swin", t.SwinConfig(**swin), t.SwinModel, pixels(16), BATCH),
        ("swinv2", t.Swinv2Config(**swin), t.Swinv2Model, pixels(16), BATCH),
        (
            "convnext", t.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2),
            t.ConvNextModel, pixels(32, True), SIDES,
        ),
        (
            "convnextv2", t.ConvNextV2Config(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2),
            t.ConvNextV2Model, pixels(32, True), SIDES,
        ),
        ("sam-vision", sam, t.SamVisionModel, pixels(32), BATCH),
        ("detr", detr, t.DetrForObjectDetection, pixels(32), BATCH),
        (
            "dpt",
            t.DPTConfig(
                **tower(image_size=32, num_hidden_layers=4), neck_hidden_sizes=[8, 8, 16, 16],
                backbone_out_indices=[0, 1, 2, 3], fusion_hidden_size=16,
                reassemble_factors=[4, 2, 1, 0.5],
            ),
            t.DPTForDepthEstimation, pixels(32), BATCH,
        ),
        (
            "segformer",
            t.SegformerConfig(
                num_encoder_blocks=2, depths=[1, 1], sr_ratios=[4, 2], hidden_sizes=[8, 16],
                patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[1, 2],
                mlp_ratios=[2, 2], decoder_hidden_size=16, num_labels=4,
            ),
            t.SegformerForSemanticSegmentation, pixels(32, True), SIDES,
        ),
        (
            "dinov3", t.DINOv3ViTConfig(**tower(num_register_tokens=2)), t.DINOv3ViTModel,
            pixels(16), BATCH,
        ),
        (
            "dinov2-open", t.Dinov2Config(
                hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
                image_size=16, patch_size=4,
            ),
            t.Dinov2Model, pixels(32, True), SIDES,
        ),
        ("beit", t.BeitConfig(**tower(use_relative_position_bias=True)), t.BeitModel,
         pixels(16), BATCH),
        ("hiera", t.HieraConfig(
            embed_dim=16, image_size=[32, 32], patch_size=[3, 3], patch_stride=[2, 2],
            patch_padding=[1, 1], depths=[1, 1], num_heads=[1, 2], query_stride=[2, 2],
            masked_unit_size=[4, 4], masked_unit_attention=[True, False], num_query_pool=1),
         t.HieraModel, pixels(32), BATCH),
        ("poolformer", t.PoolFormerConfig(
            hidden_sizes=[8, 16], depths=[1, 1], num_encoder_blocks=2, patch_sizes=[7, 3],
            strides=[4, 2], padding=[2, 1]), t.PoolFormerModel, pixels(32, True), SIDES),
    ]  # fmt: skip
    return [
        *(
            Family(name, builder(config, make), given, dims)
            for name, config, make, given, dims in kinds
        ),
        Family(
            "owlv2", builder(owl, t.Owlv2ForObjectDetection),
            lambda size: {
                "input_ids": torch.randint(1, VOCAB, (2 * (size + 1), 16)),
                "pixel_values": torch.randn(size + 1, 3, 16, 16),
            },
            {"input_ids": {0: "texts"}, "pixel_values": {0: "batch"}},
        ),
    ]  # fmt: skip


def timm_families() -> list[Family]:
    import timm

    names: list[tuple[str, int, dict[str, Any]]] = [
        ("eva02_tiny_patch14_224", 56, {
            "img_size": 56, "depth": 2, "embed_dim": 48, "num_heads": 4,
        }),
        ("mobilevit_xxs", 64, {}),
        ("mobilevitv2_050", 64, {}),
        ("coat_tiny", 32, {"img_size": 32, "embed_dims": [32] * 4, "serial_depths": [1] * 4,
                           "parallel_depth": 1, "num_heads": 8}),
        ("maxvit_rmlp_pico_rw_256", 64, {"img_size": 64}),
        ("levit_128s", 32, {"img_size": 32}),
        ("efficientnet_b0", 32, {}),
        ("edgenext_xx_small", 64, {}),
        ("crossvit_tiny_240", 240, {"depth": [[1, 1, 0]], "embed_dim": [16, 32],
                                    "num_heads": [2, 2]}),
        ("twins_svt_small", 64, {"img_size": 64, "embed_dims": [16, 32, 32, 32],
                                 "depths": [1, 1, 1, 1]}),
        ("xcit_nano_12_p16_224", 32, {"img_size": 32, "depth": 2, "embed_dim": 32, "num_heads": 4}),
        ("fastvit_t8", 64, {}),
    ]  # fmt: skip

    def bit() -> nn.Module:
        return timm.models.resnetv2.ResNetV2(
            layers=[1, 1], channels=[128, 128], stem_chs=32, stem_type="fixed", num_classes=5
        )

    def nfnet() -> nn.Module:
        config = timm.models.nfnet.NfCfg(
            depths=(1, 1, 1, 1), channels=(16, 16, 32, 32), stem_type="deep_quad", stem_chs=16,
            group_size=8, bottle_ratio=0.5, attn_layer="se", attn_kwargs={}, num_features=32,
        )
        return timm.models.nfnet.NormFreeNet(config, num_classes=5)

    def maker(name: str, more: dict[str, Any]) -> Callable[[], nn.Module]:
        return lambda: timm.create_model(
            name, num_classes=5, **{k: v for k, v in more.items() if v is not None}
        )

    return [
        Family("timm-bit", builder(None, bit), pixels(64, name="x"), {"x": {0: "batch"}}),
        Family("timm-nfnet", builder(None, nfnet), pixels(64, name="x"), {"x": {0: "batch"}}),
        *(Family("timm-" + name.split("_")[0],
               builder(None, maker(name, more)), pixels(side, name="x"), {"x": {0: "batch"}})
        for name, side, more in names)
    ]  # fmt: skip
