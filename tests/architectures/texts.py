"""Encoders of text, and recurrent layers."""

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
    Inputs,
    builder,
    text,
)
from torch import Tensor, nn

# fmt: off


def texts_families() -> list[Family]:
    common: dict[str, Any] = {
        "hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "vocab_size": VOCAB, "max_position_embeddings": 64,
    }  # fmt: skip
    kinds: list[tuple[str, Any, Any]] = [
        (
            "deberta-v2",
            t.DebertaV2Config(
                **common, relative_attention=True, pos_att_type=["p2c", "c2p"],
                position_buckets=8, norm_rel_ebd="layer_norm", share_att_key=True,
                conv_kernel_size=3,
            ),
            t.DebertaV2Model,
        ),
        (
            "deberta",
            t.DebertaConfig(**common, relative_attention=True, pos_att_type=["p2c", "c2p"]),
            t.DebertaModel,
        ),
        (
            "xlnet",
            t.XLNetConfig(
                vocab_size=VOCAB, d_model=HIDDEN, n_layer=LAYERS, n_head=HEADS, d_inner=48
            ),
            t.XLNetModel,
        ),
        (
            "modernbert",
            t.ModernBertConfig(
                **common, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1,
                sep_token_id=2, local_attention=4, global_attn_every_n_layers=2,
                reference_compile=False,
            ),
            t.ModernBertForMaskedLM,
        ),
        (
            "longformer",
            t.LongformerConfig(**common, attention_window=[4, 4], pad_token_id=1),
            t.LongformerModel,
        ),
        (
            "funnel",
            t.FunnelConfig(
                vocab_size=VOCAB, block_sizes=[1, 1], num_decoder_layers=1, d_model=HIDDEN,
                n_head=HEADS, d_head=8, d_inner=48,
            ),
            t.FunnelModel,
        ),
        (
            "fnet",
            t.FNetConfig(
                hidden_size=HIDDEN, intermediate_size=48, num_hidden_layers=LAYERS,
                vocab_size=VOCAB, max_position_embeddings=64,
            ),
            t.FNetModel,
        ),
        (
            "squeezebert",
            t.SqueezeBertConfig(**{**common, "embedding_size": HIDDEN}),
            t.SqueezeBertModel,
        ),
    ]  # fmt: skip
    return [
        Family(
            name, builder(config, make),
            (lambda size: text(size, False)) if name == "fnet" else text, TEXT_DIMS,
        )
        for name, config, make in kinds
    ]  # fmt: skip


class Recurrent(nn.Module):
    """An embedding, a recurrent layer of two directions, a product."""

    def __init__(self, kind: type[nn.Module], **more: Any) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCAB, 16)
        self.layer = kind(16, 12, num_layers=2, bidirectional=True, batch_first=True, **more)
        self.head = nn.Linear(24 if "proj_size" not in more else 2 * more["proj_size"], 8)

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        every, last = self.layer(self.table(input_ids))
        last = last[0] if isinstance(last, tuple) else last
        return self.head(every), last


def recurrent_families() -> list[Family]:
    def only(size: int) -> Inputs:
        return text(size, False)

    return [
        Family("lstm", builder(None, lambda: Recurrent(nn.LSTM)), only, TEXT_DIMS),
        Family("gru", builder(None, lambda: Recurrent(nn.GRU)), only, TEXT_DIMS),
        Family("rnn", builder(None, lambda: Recurrent(nn.RNN)), only, TEXT_DIMS),
    ]
