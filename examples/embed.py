"""Sentence embeddings with all-MiniLM-L6-v2: mean of the token states, scaled to length one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

# Typed as Any: the tokenizer classes of transformers carry no usable annotations.
Tokenizer = Any


def load_base(folder: Path) -> tuple[nn.Module, Tokenizer]:
    """Load model (evaluation mode, float32) and tokenizer from `folder`, without network."""
    model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return model.eval(), tokenizer


def mean_pool(states: Tensor, mask: Tensor) -> Tensor:
    """Average token states [n, t, d] over the tokens where `mask` [n, t] is 1; rows of length 1."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    mean = (states * weights).sum(dim=1) / weights.sum(dim=1)
    return nn.functional.normalize(mean, dim=-1)


def embed_batch(
    model: nn.Module, tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int = 128
) -> Tensor:
    """Embed `texts` in one forward pass; gradients flow if the caller lets them."""
    batch = tokenizer(
        list(texts), padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
    )
    return mean_pool(model(**batch).last_hidden_state, batch["attention_mask"])


@torch.inference_mode()
def embed(
    model: nn.Module, tokenizer: Tokenizer, texts: Sequence[str], batch_size: int = 64
) -> Tensor:
    """Embed any number of `texts` as rows [n, d] in their order.

    Batches are formed by length, so that little is spent on padding; ties keep their order, so
    the same texts always meet in the same batch and the result is reproducible.
    """
    if model.training:
        raise ValueError("embed needs model.eval(): dropout would make the result random")
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    rows: list[Tensor] = [torch.empty(0)] * len(texts)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        vectors = embed_batch(model, tokenizer, [texts[index] for index in chosen])
        for index, vector in zip(chosen, vectors, strict=True):
            rows[index] = vector
    return torch.stack(rows)
