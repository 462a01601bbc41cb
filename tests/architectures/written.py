"""Modules that users write by hand: what they do to shapes and places is spelled out."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from architectures.making import VOCAB, Family, Inputs, builder
from torch import Tensor, nn

# fmt: off


class Turned(nn.Module):
    """Attention whose queries and keys are turned by pairs, from positions that are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.all = nn.Embedding(VOCAB, 32), nn.Linear(32, 96)
        self.register_buffer("steps", 1e4 ** (-torch.arange(4) / 4))

    def turned(self, x: Tensor, angles: Tensor) -> Tensor:
        even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
        real = even * angles.cos() - odd * angles.sin()
        return torch.stack((real, even * angles.sin() + odd * angles.cos()), -1).flatten(-2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.table(input_ids)
        places = (attention_mask.cumsum(-1) - 1).masked_fill(attention_mask == 0, 1)
        angles = (places[..., None].float() * self.steps)[:, None]
        q, k, v = self.all(x).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        q, k = self.turned(q, angles), self.turned(k, angles)
        n = input_ids.shape[1]
        order = torch.arange(n)
        seen = (order[:, None] >= order[None]) & attention_mask.bool()[:, None, None]
        scores = torch.einsum("bhid,bhjd->bhij", q, k) * 8**-0.5
        scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
        return x + torch.einsum("bhij,bhjd->bihd", scores.softmax(-1), v).flatten(2)


class Merged(nn.Module):
    """Features of pictures put where a token asks for them, by places and by a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.see = nn.Embedding(VOCAB, 16), nn.Conv2d(3, 16, 4, 4)

    def forward(self, input_ids: Tensor, pixel_values: Tensor) -> tuple[Tensor, ...]:
        x = self.table(input_ids)
        seen = self.see(pixel_values).flatten(2).transpose(-1, -2).flatten(0, 1)
        mask = input_ids == 1
        one = x.masked_scatter(mask[..., None].expand_as(x), seen)
        two = x.clone()
        two[mask] = seen.to(two.dtype)
        order = torch.where(mask.flatten(), mask.flatten().cumsum(0) - 1, 0)
        three = torch.where(mask[..., None], seen[order].view_as(x), x)
        return one, two, three


class Sampled(nn.Module):
    """Deformed sampling of several levels, as detectors have it."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv2d(3, 16, 3, 2**k, 1) for k in (1, 2))
        self.asked, self.off, self.weigh = (nn.Parameter(torch.randn(5, 16)),
                                            nn.Linear(16, 2 * 2 * 3 * 2), nn.Linear(16, 12))

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        b = pixel_values.shape[0]
        maps = [level(pixel_values) for level in self.levels]
        asked = self.asked.expand(b, -1, -1)
        off = self.off(asked).tanh().view(b, 5, 2, 2, 3, 2)
        weight = self.weigh(asked).view(b, 5, 2, 6).softmax(-1)
        found = []
        for level, each in enumerate(maps):
            heads = each.unflatten(1, (2, 8)).flatten(0, 1)
            places = off[:, :, :, level].transpose(1, 2).flatten(0, 1)
            found.append(
                F.grid_sample(heads, places, padding_mode="border", align_corners=False)
            )
        weight = weight.transpose(1, 2).reshape(b * 2, 1, 5, 6)
        out = (torch.stack(found, -2).flatten(-2) * weight).sum(-1).view(b, 16, 5)
        score, which = out.transpose(-1, -2).sigmoid().max(-1)
        best = score.topk(3, dim=1).indices
        return out, out.gather(2, best[:, None].expand(-1, 16, -1)), which


class Folded(nn.Module):
    """Pictures cut to pieces that lap over one another, worked on, and laid together again."""

    def __init__(self) -> None:
        super().__init__()
        self.work = nn.Linear(27, 27)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        h, w = pixel_values.shape[-2:]
        pieces = F.unfold(pixel_values, 3, padding=1, stride=2)
        done = self.work(pieces.transpose(-1, -2)).relu().transpose(-1, -2)
        whole = F.fold(done, (16, 16), 3, padding=1, stride=2)
        windows = pixel_values.unfold(2, 4, 4).unfold(3, 4, 4).flatten(-2).amax(-1)
        rolled = torch.roll(pixel_values, (-2, 3), (2, 3)).flip(-1)
        apart = F.pixel_unshuffle(rolled, 2)
        return whole, windows, F.pixel_shuffle(apart.cumsum(2), 2)[..., :h, :w]


class Sounded(nn.Module):
    """A spectrum of sound, by windows that are laid out by hand, in decibels."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(64))
        angle = torch.arange(64)[:, None] * torch.arange(33) * (-2 * torch.pi / 64)
        self.register_buffer("waves", torch.cat((angle.cos(), angle.sin()), 1))
        self.register_buffer("bank", torch.rand(33, 8))

    def forward(self, input_values: Tensor) -> tuple[Tensor, ...]:
        x = F.pad(input_values[:, None], (32, 32), mode="reflect")[:, 0]
        start = torch.arange((x.shape[1] - 64) // 16 + 1) * 16
        frames = x[:, start[:, None] + torch.arange(64)] * self.window
        real, imaginary = (frames @ self.waves).chunk(2, -1)
        power = real**2 + imaginary**2
        sound = torch.log10((power @ self.bank).clamp(min=1e-10)) * 10
        sound = torch.maximum(sound, sound.amax((1, 2), keepdim=True) - 80)
        std, mean = torch.std_mean(sound, dim=1, keepdim=True)
        near = F.interpolate(
            sound.transpose(-1, -2), scale_factor=2, mode="linear", align_corners=True)
        spectrum = torch.stft(
            input_values, 64, 16, window=self.window, return_complex=False, center=False
        )
        return (sound - mean) / (std + 1e-5), near, spectrum


class Chosen(nn.Module):
    """Numbers put into classes by a cascade, and relative places into logarithmic buckets."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Embedding(16, 4)

    def forward(self, input_ids: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        n = input_ids.shape[1]
        off = torch.arange(n)[None] - torch.arange(n)[:, None]
        side, far = (off > 0).long() * 8, off.abs()
        large = (4 + torch.log(far.float().clamp(min=1) / 4) / 3.4657 * 4).long()
        bias = self.bias(side + torch.where(far < 4, far, large.clamp(max=7))).permute(2, 0, 1)
        kind = torch.where(values < -1, 0, torch.where(values < 0, 1, torch.where(
            values < 1, 2, 3)))
        counts = torch.zeros(values.shape[0], 4).scatter_add(1, kind, torch.ones_like(values))
        each = F.one_hot(kind, 4).float().cumsum(1).gather(2, kind[..., None])[..., 0]
        order = values.argsort(dim=1, descending=True)
        again = torch.zeros_like(order).scatter(1, order, torch.arange(n).expand_as(order))
        first = (input_ids == 2).int().argmax(-1)
        last = values[torch.arange(values.shape[0]), first]
        mod = (input_ids - 50) % 7 + input_ids // 4 + torch.fmod(input_ids - 50, 5)
        return bias[None] + values[:, None, None], counts + each.sum(1, keepdim=True), (
            again + mod + last[:, None].sign().long())


class Experts(nn.Module):
    """Tokens sent to two of four experts by one product for all, and added up in their places."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.gate = nn.Embedding(VOCAB, 16), nn.Linear(16, 4, bias=False)
        self.up = nn.Parameter(torch.randn(4, 16, 24) / 4)
        self.down = nn.Parameter(torch.randn(4, 12, 16) / 4)

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        x = self.table(input_ids)
        flat = x.flatten(0, 1)
        weight, expert = self.gate(flat).softmax(-1, dtype=torch.float32).topk(2, -1)
        weight = (weight / weight.sum(-1, keepdim=True)).to(x.dtype)
        token = torch.arange(flat.shape[0]).repeat_interleave(2)
        gate, up = torch.bmm(flat[token, None], self.up[expert.flatten()]).chunk(2, -1)
        done = torch.bmm(F.silu(gate) * up, self.down[expert.flatten()])[:, 0]
        out = torch.zeros_like(flat).scatter_add(
            0, token[:, None].expand_as(done), done * weight.flatten()[:, None])
        load = F.one_hot(expert, 4).float().mean((0, 1))
        return out.view_as(x) + x, load


class Boxes(nn.Module):
    """Boxes from maps: places of a grid, distances to sides, overlaps, and points along them."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Sequential(nn.Conv2d(3, 16, 3, 4, 1), nn.GroupNorm(4, 16), nn.Hardswish())
        self.sides = nn.Conv2d(16, 4 * 8, 1)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        x = self.see(pixel_values)
        b, _, h, w = x.shape
        y, z = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
        middle = torch.stack((z, y), -1).view(1, -1, 2).to(x.dtype)
        bins = self.sides(x).view(b, 4, 8, h * w).softmax(2)
        off = (bins * torch.arange(8, dtype=x.dtype)[None, None, :, None]).sum(2).transpose(-1, -2)
        box = torch.cat((middle - off[..., :2], middle + off[..., 2:]), -1)
        low = torch.maximum(box[:, :, None, :2], box[:, None, :, :2])
        high = torch.minimum(box[:, :, None, 2:], box[:, None, :, 2:])
        inner = (high - low).clamp(min=0).prod(-1)
        area = (box[..., 2:] - box[..., :2]).prod(-1)
        size = torch.tensor([w, h, w, h], dtype=x.dtype)
        return box / size, inner / (area[:, :, None] + area[:, None] - inner + 1e-6), F.interpolate(
            x.mean((2, 3), keepdim=True) + x[:, :, ::2, ::2], size=(h, w), mode="bilinear",
            align_corners=False)


def _ids(size: int) -> Tensor:
    return torch.randint(3, VOCAB, ((2, 6), (3, 9))[size])


def _with_mask(size: int) -> Inputs:
    ids = _ids(size)
    mask = torch.ones_like(ids)
    mask[1, :2] = 0
    return {"input_ids": ids, "attention_mask": mask}


def _with_pictures(size: int) -> Inputs:
    ids = _ids(size)
    ids[:, 1:5] = 1
    return {"input_ids": ids, "pixel_values": torch.randn(2 + size, 3, 8, 8)}


def _pictures(size: int) -> Inputs:
    return {"pixel_values": torch.randn(2 + size, 3, 16 + 8 * size, 16 + 4 * size)}


def _squares(size: int) -> Inputs:
    return {"pixel_values": torch.randn(2 + size, 3, 16, 16)}


def _with_values(size: int) -> Inputs:
    ids = _ids(size)
    return {"input_ids": ids, "values": torch.randn(ids.shape) * 2}


def written_families() -> list[Family]:
    """Return them."""
    seq, batch = {0: "batch", 1: "seq"}, {0: "batch"}
    sides = {0: "batch", 2: "height", 3: "width"}
    kinds: list[tuple[str, type[nn.Module], Callable[[int], Inputs], dict[str, dict[int, str]]]] = [
        ("written-turned", Turned, _with_mask, {"input_ids": seq, "attention_mask": seq}),
        ("written-merged", Merged, _with_pictures, {"input_ids": seq, "pixel_values": batch}),
        ("written-sampled", Sampled, _pictures, {"pixel_values": sides}),
        ("written-folded", Folded, _squares, {"pixel_values": batch}),
        ("written-sounded", Sounded,
         lambda size: {"input_values": torch.randn(2 + size, 320 + 160 * size)},
         {"input_values": {0: "batch", 1: "samples"}}),
        ("written-chosen", Chosen, _with_values, {"input_ids": seq, "values": seq}),
        ("written-experts", Experts, lambda size: {"input_ids": _ids(size)}, {"input_ids": seq}),
        ("written-boxes", Boxes, _pictures, {"pixel_values": sides}),
    ]  # fmt: skip
    return [
        Family(name, builder(None, lambda make=make: make()), given, dims)
        for name, make, given, dims in kinds
    ]
