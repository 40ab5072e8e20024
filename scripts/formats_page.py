"""Writes ``docs/formats.md`` from the readers themselves; a test compares the two."""

import functools
import sys
from pathlib import Path
from types import ModuleType

from rankloom.adapter import fields, kinds

PAGE = Path(__file__).parents[1] / "docs/formats.md"

HEAD = """\
# Formats
What an adapter's folder may hold and what rankloom does with it. Every tensor and every field of
the config is either understood or refused by name; nothing is ignored in silence.

A change can always be applied to a base, on disk and live, and composed with others by
W + Σ wᵢ(Wᵢ′ − W). Saving a composition as a PEFT folder needs factors: *export* says whether a
kind has them; what replaces values of the base can be saved with a weight of 1 in all, beside
factors: with another one a part of the base's own would be left in the sum, which no adapter holds.
PEFT saves the base's own values with every embedding that it targets; adapters saved by
`save_pretrained(..., save_embedding_layers=False)` are composed with any weights. What counts, as a
batch norm does, is a whole number and takes weight 1 also when applied, by a
[filter](composition.md#weights) where the others are to have another. Where a kind has no factors,
apply the composition to a base instead. LoHa and AdaLoRA are saved
as for linear layers, since their files do not tell a convolution's kernel: PEFT and rankloom refuse
the result on a convolution by its shape.
"""

REST = """
## Other formats in
`loractl convert SOURCE -o DIR [--base BASE]` turns a LoRA of another tool into a PEFT folder. What
it cannot carry over is refused by name, and what it wrote is read back, and checked against the
base, before it gets its name.

| format | keys | alpha |
| --- | --- | --- |
| kohya | `….lora_down.weight`, `….lora_up.weight`, `….lora_mid.weight` | `….alpha`, else the rank |
| LyCORIS | the same, `….dora_scale`, `….hada_w1_a`, `….lokr_w1` … | `….alpha`, else the rank |
| diffusers | `….lora.down.weight` and its like | `….alpha`, else the rank |
| diffusers | `….lora_A.weight`, `….lora_B.weight` | the file's metadata, else the rank |
| loralib | `….lora_A`, `….lora_B` | `--alpha` |
| PEFT, pickled | a folder with `adapter_model.bin` | its config |

```console
$ loractl convert style.safetensors -o ./style --base ./llama
$ loractl convert style.pt -o ./style-2 --base ./llama --allow-pickle
$ loractl convert ./old-peft -o ./adapter --allow-pickle
$ loractl convert pipeline.safetensors -o ./pipeline-lora --base ./pipeline
```

* **Names.** kohya's underscores are told apart by the base: a name of no module, or of two, is
  refused with the candidates. Modules get the names that they have in memory in the class of the
  base's `config.json`, where PEFT looks for them, as transformers 5 has them. Without `--base`
  dotted names stay as they are, unchecked, and the report says so.
* **Pipelines.** A file for several models (`lora_unet_`, `lora_te1_`, `text_encoder.` …) becomes a
  folder for each; `--base` is then the pipeline's folder. A UNet's modules may have the names of
  Stability's own checkpoints (`input_blocks_4_1_…`), as kohya writes them for SDXL.
* **Types.** LoRA, with a middle factor for convolutions too; DoRA whose `dora_scale` is one number
  for each output; LoHa; LoKr, if PEFT's `decompose_factor` makes the same shapes. A file has one.
* **Pickles** (`.bin`, `.pt`, `.pth`, `.ckpt`) are read only with `--allow-pickle`, by an unpickler
  that rebuilds tensors and calls nothing else. Everywhere else they are refused (`SEC001`).

## LoRA folders out
What `compose` and `convert` write as LoRA is the same change to every engine: one rank and one
scale for all modules, no `rank_pattern`, no `alpha_pattern`, which SGLang, TGI, LoRAX, llama.cpp
and TensorRT-LLM read in part or not at all ([why](adr/0004-one-rank.md)). Smaller ranks are
filled up with zeros, scales go into B. In `compose` they do so in float32 (float64 if an adapter
is); in `convert` factors keep their bits if all modules have one scale, and become float32, or
float64 where only that holds the products, if not. vLLM wants `--max-lora-rank` to be at least
the rank, of 8, 16, 32, 64, 128, 256, 320, 512: `rank=` brings a composition there. A PEFT folder
that has patterns, pickled or not, gets this form by `loractl compose ./folder -o ./served`.

## Forms of a base
A folder with `config.json` and safetensors, in one file or sharded with an index; names of
transformers 4 and 5, per-expert or fused; float32, bfloat16, float16 and float64. Quantised bases
(GPTQ, AWQ, compressed-tensors, fp8 with scales, bitsandbytes and their like) are recognised and
refused (`BASE006`) with the remedy: apply to the base before its quantisation. What such a base
keeps as floats can be changed; its codes are copied.

For those who want codes all the same, `rankloom_kernels.merge_quantised_` dequantises, adds and
quantises again: NF4, int8, fp8, and 4 bits in groups as GPTQ (`gptq`, `gptq_v2`, with `desc_act`),
AWQ (`gemm`) and compressed-tensors (`pack-quantized`) store them. `read_int4` takes a module's
tensors and the `quantization_config`, and `stored_int4` gives them back. A group keeps its scale
and zero where they reach all sums, and gets wider ones where not, so that nothing is cut off; every
element is within half a step of its sum, but a delta smaller than that may add nothing. What
readers of a format take for different numbers is refused, such as zeros of `gptq_v2` in a config
that says `gptq`.

Whether a module keeps its weight as (out, in), or as (in, out) like transformers' `Conv1D`, is
known of transformers' models. Without their `config.json` the headers tell: a `Conv1D` always has
a bias, as long as its output. A square weight with a bias is read as a linear layer's, unless
another module of the base, or the adapter's `fan_in_fan_out`, speaks of `Conv1D`, or the adapter
leaves it open (HiRA): then it is refused. Where nothing at all tells, `apply` says which weights
it took as a linear layer's (`BASE008`); a live apply asks the modules themselves.

## The manifest
`rankloom.json` beside the files holds schema, files (path, size, digest), the fingerprint of the
base and the lock. Its canonical JSON (sorted keys, no spaces, UTF-8) is hashed to the version's
digest.
"""


def page() -> str:
    """Return the page's text."""
    return HEAD + _lora() + _types() + _refused() + REST


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [f"\n## {title}", _row(columns), _row(("---",) * len(columns))]
    return "\n".join([*lines, *map(_row, rows)]) + "\n"


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _lora() -> str:
    rows = [(_about(_module(reader)), export) for reader, export in kinds.LORA_EXPORT.items()]
    return _table("`peft_type` LORA", ("what", "export"), rows)


def _types() -> str:
    rows = [
        (f"`{name}`", _about(_module(kind.read)), kind.export)
        for name, kind in sorted(kinds.KINDS.items())
    ]
    return _table("Other types", ("`peft_type`", "what", "export"), rows)


def _refused() -> str:
    options = [(f"`{name}`", why, remedy) for name, (_, why, remedy) in fields.REFUSED.items()]
    types = [(f"`{name}`", kind.why, kind.fix) for name, kind in sorted(kinds.UNMERGEABLE.items())]
    return _table("Refused by name", ("field or type", "because it", "instead"), options + types)


def _module(reader: kinds.Reader) -> ModuleType:
    function = reader.func if isinstance(reader, functools.partial) else reader
    return sys.modules[function.__module__]


def _about(module: ModuleType) -> str:
    """Return the first sentence of a module, which says what it reads."""
    text = " ".join((module.__doc__ or "").split("\n\n")[0].split())
    return text.rstrip(".")


if __name__ == "__main__":
    PAGE.write_text(page())
