"""Modules that are no transformers models: convolutions, nn.MultiheadAttention, embeddings."""

from __future__ import annotations

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D


class Convolutions(nn.Module):
    """A convolution of each sort, and the normalisations that go with them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.one = nn.Conv2d(8, 12, 1)
        self.line = nn.Conv1d(12, 8, 3)
        self.cube = nn.Conv3d(1, 4, 2)
        self.head = nn.Linear(4, 8)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(batch, 4, h, w) → (batch, 8)."""
        x = self.one(self.grouped(self.norm(self.conv(image)).relu()).relu())
        x = self.line(x.flatten(2)).tanh()
        x = self.cube(x.unflatten(2, (2, -1))[:, None].contiguous())
        return self.head(x.mean((2, 3, 4)))


class Attention(nn.Module):
    """nn.MultiheadAttention, whose projections are one parameter, between linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.mha = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, time, 8) → (batch, time, 4)."""
        x = self.first(x)
        return self.head(self.norm(x + self.mha(x, x, x, need_weights=False)[0]))


class Mixer(nn.Module):
    """A matrix that belongs to no layer of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(12, 12) / 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, 12) → (…, 12)."""
        return x @ self.matrix


class Bag(nn.Module):
    """An embedding, a matrix that is a bare parameter, and linear layers with and without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(20, 12)
        self.mixer = Mixer()
        self.lin = nn.Linear(12, 16)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 4, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(batch, time) → (batch, time, 4)."""
        return self.head(self.norm(self.lin(self.mixer(self.emb(ids))).tanh()))


class Turned(nn.Module):
    """Layers whose weights are (in, out), under names that no model of transformers has."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = Conv1D(24, 8)
        self.shrink = Conv1D(8, 24)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, time, 8) → (batch, time, 4)."""
        return self.head(self.norm(x + self.shrink(self.expand(x).tanh())))
