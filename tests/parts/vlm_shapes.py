"""Small models shaped as LLaVA and Qwen2-VL, exported from PyTorch: a tower, what joins, a decoder.

python tests/parts/vlm_shapes.py FOLDER
python tests/parts/round_trips.py FOLDER/llava.onnx=FOLDER/llava.npz
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import transformers

IMAGE, WIDTH, WORDS = 99, 32, 100
TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": WORDS,
}


class Llava(torch.nn.Module):
    """CLIP's tower, the projector, and Llama on words with features in the places of images."""

    def __init__(self):
        super().__init__()
        vision = transformers.CLIPVisionConfig(
            hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            image_size=28, patch_size=14,
        )  # fmt: skip
        config = transformers.LlavaConfig(
            vision_config=vision, text_config=transformers.LlamaConfig(**TEXT)
        )
        config._attn_implementation = "eager"
        whole = transformers.LlavaForConditionalGeneration(config)
        self.vision_tower = whole.model.vision_tower
        self.multi_modal_projector = whole.model.multi_modal_projector
        self.language_model, self.lm_head = whole.model.language_model, whole.lm_head

    def forward(self, input_ids, pixel_values, attention_mask):
        seen = self.multi_modal_projector(self.vision_tower(pixel_values)[0][:, 1:])
        words = _merged(self.language_model, input_ids, seen)
        given = {"inputs_embeds": words, "attention_mask": attention_mask, "use_cache": False}
        return self.lm_head(self.language_model(**given)[0])


class Block(torch.nn.Module):
    """A block of a tower whose positions turn queries and keys."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = torch.nn.LayerNorm(WIDTH), torch.nn.LayerNorm(WIDTH)
        self.qkv, self.proj = torch.nn.Linear(WIDTH, 3 * WIDTH), torch.nn.Linear(WIDTH, WIDTH)
        self.fc1, self.fc2 = torch.nn.Linear(WIDTH, 64), torch.nn.Linear(64, WIDTH)

    def forward(self, x, cos, sin):
        parts = self.qkv(self.norm1(x)).reshape(len(x), 3, 4, WIDTH // 4)
        query, key, value = parts.permute(1, 2, 0, 3)
        scores = _turned(query, cos, sin) @ _turned(key, cos, sin).transpose(-1, -2)
        mixed = torch.softmax(scores / (WIDTH // 4) ** 0.5, -1) @ value
        x = x + self.proj(mixed.transpose(0, 1).reshape(len(x), WIDTH))
        return x + self.fc2(torch.nn.functional.gelu(self.fc1(self.norm2(x))))


def _turned(x, cos, sin):
    half = WIDTH // 8
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


class Visual(torch.nn.Module):
    """Patches, their rows and columns, and four of them merged into one."""

    def __init__(self):
        super().__init__()
        self.patch_embed = torch.nn.Linear(96, WIDTH, bias=False)
        self.blocks = torch.nn.ModuleList([Block(), Block()])
        self.ln_q = torch.nn.LayerNorm(WIDTH)
        self.merger = torch.nn.Sequential(
            torch.nn.Linear(4 * WIDTH, 4 * WIDTH),
            torch.nn.GELU(),
            torch.nn.Linear(4 * WIDTH, WIDTH),
        )

    def forward(self, patches, rows, columns):
        steps = 1 / 10000 ** (torch.arange(0, WIDTH // 4, 4) / (WIDTH // 4))
        angles = torch.cat((rows[:, None] * steps, columns[:, None] * steps), -1)
        angles = torch.cat((angles, angles), -1)
        x = self.patch_embed(patches)
        for block in self.blocks:
            x = block(x, angles.cos(), angles.sin())
        return self.merger(self.ln_q(x).reshape(-1, 4 * WIDTH))


class Qwen2VL(torch.nn.Module):
    """Such a tower, and a text model with three kinds of positions."""

    def __init__(self):
        super().__init__()
        rotary = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
        config = transformers.Qwen2VLTextConfig(
            **TEXT, rope_parameters=rotary, use_sliding_window=False
        )
        config._attn_implementation = "eager"
        self.visual, self.language_model = Visual(), transformers.Qwen2VLTextModel(config)
        self.lm_head = torch.nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, input_ids, pixel_values, rows, columns, attention_mask, position_ids):
        words = _merged(self.language_model, input_ids, self.visual(pixel_values, rows, columns))
        found = self.language_model(
            inputs_embeds=words, attention_mask=attention_mask, position_ids=position_ids,
            use_cache=False,
        )  # fmt: skip
        return self.lm_head(found[0])


def _merged(text, ids, seen):
    words = text.embed_tokens(ids)
    return words.masked_scatter((ids == IMAGE).unsqueeze(-1).expand_as(words), seen)


def shapes():
    """Return each model's name, module and inputs by name."""
    torch.manual_seed(0)
    ids = torch.randint(0, IMAGE, (1, 9))
    ids[:, 1:5] = IMAGE
    seen = torch.ones(1, 9, dtype=torch.long)
    yield "llava", Llava(), {
        "input_ids": ids, "pixel_values": torch.randn(1, 3, 28, 28), "attention_mask": seen,
    }  # fmt: skip
    yield "qwen2vl", Qwen2VL(), {
        "input_ids": ids, "pixel_values": torch.randn(16, 96),
        "rows": torch.arange(4.0).repeat_interleave(4), "columns": torch.arange(4.0).repeat(4),
        "attention_mask": seen, "position_ids": torch.arange(9).expand(3, 1, 9).clone(),
    }  # fmt: skip


def main(folder: str) -> None:
    """Export them, each with its inputs."""
    for name, module, inputs in shapes():
        path = Path(folder) / f"{name}.onnx"
        program = torch.onnx.export(
            module.eval(), tuple(inputs.values()), dynamo=True, input_names=list(inputs),
            verbose=False,
        )  # fmt: skip
        program.save(path)
        np.savez(path.with_suffix(".npz"), **{n: each.numpy() for n, each in inputs.items()})


if __name__ == "__main__":
    main(sys.argv[1])
