"""Models that hear and speak."""

from __future__ import annotations

from typing import Any

import torch
import transformers as t
from architectures.making import (
    HEADS,
    HIDDEN,
    LAYERS,
    SOUND,
    VOCAB,
    Family,
    Inputs,
    builder,
    sound,
)

# fmt: off


def sounds_families() -> list[Family]:
    wave: dict[str, Any] = {
        "hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "vocab_size": 32, "conv_dim": (16, 16), "conv_stride": (4, 4),
        "conv_kernel": (8, 4), "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
    }  # fmt: skip
    clap = t.ClapAudioConfig(
        hidden_size=32, patch_embeds_hidden_size=16, depths=[1, 1], num_attention_heads=[2, 4],
        window_size=2, spec_size=16, num_mel_bins=8, patch_size=2, patch_stride=[2, 2],
        num_hidden_layers=2, projection_dim=16, num_classes=4,
    )
    moonshine = t.MoonshineConfig(
        hidden_size=HIDDEN, intermediate_size=48, vocab_size=VOCAB, encoder_num_hidden_layers=1,
        decoder_num_hidden_layers=1, encoder_num_attention_heads=4, decoder_num_attention_heads=4,
    )
    vits = t.VitsConfig(
        vocab_size=32, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=2,
        ffn_dim=48, flow_size=16, spectrogram_bins=9, upsample_initial_channel=32,
        upsample_rates=[2, 2], upsample_kernel_sizes=[4, 4], resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3]], prior_encoder_num_flows=2,
        prior_encoder_num_wavenet_layers=2, duration_predictor_num_flows=2,
        depth_separable_num_layers=2, duration_predictor_filter_channels=16,
        use_stochastic_duration_prediction=False, noise_scale=0.0,
    )
    speech = t.SpeechT5Config(
        hidden_size=HIDDEN, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, vocab_size=32,
        conv_dim=(16, 16), conv_stride=(4, 4), conv_kernel=(8, 4), num_mel_bins=8,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, speech_decoder_prenet_units=16,
        speaker_embedding_dim=8, speech_decoder_postnet_units=16,
    )

    def conformer(size: int) -> Inputs:
        torch.manual_seed(size)
        return {"input_features": torch.randn(2 + size, 12 + 8 * size, 16)}

    def to_text(size: int) -> Inputs:
        torch.manual_seed(size)
        return {
            **sound(4000)(size),
            "decoder_input_ids": torch.randint(3, 30, (2 + size, 4 + size)),
        }

    to_text_dims = {**SOUND, "decoder_input_ids": {0: "batch", 1: "target"}}
    return [
        Family("wav2vec2", builder(t.Wav2Vec2Config(**wave), t.Wav2Vec2ForCTC), sound(800), SOUND),
        Family(
            "wav2vec2-stable",
            builder(
                t.Wav2Vec2Config(
                    **wave, do_stable_layer_norm=True, feat_extract_norm="layer", conv_bias=True
                ),
                t.Wav2Vec2Model,
            ),
            sound(800), SOUND,
        ),
        Family("hubert", builder(t.HubertConfig(**wave), t.HubertModel), sound(800), SOUND),
        Family("wavlm", builder(t.WavLMConfig(**wave), t.WavLMModel), sound(800), SOUND),
        Family(
            "wav2vec2-bert",
            builder(
                t.Wav2Vec2BertConfig(
                    hidden_size=HIDDEN, intermediate_size=48, num_hidden_layers=LAYERS,
                    num_attention_heads=HEADS, feature_projection_input_dim=16, vocab_size=32,
                ),
                t.Wav2Vec2BertModel,
            ),
            conformer, {"input_features": {0: "batch", 1: "frames"}},
        ),
        Family(
            "clap-audio", builder(clap, t.ClapAudioModelWithProjection),
            lambda size: {"input_features": torch.randn(2 + size, 1, 32, 8)},
            {"input_features": {0: "batch"}},
        ),
        Family(
            "moonshine", builder(moonshine, t.MoonshineForConditionalGeneration), to_text,
            to_text_dims,
        ),
        Family(
            "vits", builder(vits, t.VitsModel),
            lambda size: {"input_ids": torch.randint(1, 30, (1, 6 + 3 * size))},
            {"input_ids": {1: "seq"}},
        ),
        Family(
            "speecht5", builder(speech, t.SpeechT5ForSpeechToText), to_text, to_text_dims,
        ),
        Family(
            "encodec",
            builder(
                t.EncodecConfig(
                    num_filters=4, upsampling_ratios=[4, 2], hidden_size=16, codebook_size=16,
                    codebook_dim=16, num_lstm_layers=1, sampling_rate=8000,
                ),
                t.EncodecModel, lambda model, input_values: model.encoder(input_values),
            ),
            lambda size: {"input_values": torch.randn(2 + size, 1, 320 + 80 * size)},
            {"input_values": {0: "batch", 2: "samples"}},
        ),
    ]  # fmt: skip
