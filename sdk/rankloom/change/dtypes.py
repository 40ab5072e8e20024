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

INTEGERS = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
}
"""safetensors code → dtype of what counts or indexes."""

ALL_CODES = {dtype: code for code, dtype in (FLOATS | INTEGERS).items()} | {
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
"""The same for every dtype that a model's state can have."""

ALL_DTYPES = {code: dtype for dtype, code in ALL_CODES.items()}
"""safetensors code → dtype, of all of them."""
