"""The dtypes of safetensors files that hold weights we compute with."""

from __future__ import annotations

import torch

FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""safetensors code → dtype."""

CODES = {dtype: code for code, dtype in FLOATS.items()}
"""dtype → safetensors code."""
