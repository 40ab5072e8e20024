"""What other software does with adapters that break a rule: read in its source, or run.

Run with: safetensors 0.8.0, PEFT 0.21.2. Read in: vLLM 0.33.0, SGLang 0.5.23, TGI, LoRAX,
llama.cpp, TensorRT-LLM and Ollama, at versions of autumn 2026. The pages of the rules and
``loractl rule`` show it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_REFUSED = "safetensors 0.8.0 refuses such a file, too."
_ACCEPTED = "safetensors 0.8.0 reads such a file without a word."
_SILENT = "PEFT 0.21.2 loads such an adapter without a word."

EVIDENCE: Mapping[str, str] = {
    "FMT001": _REFUSED,
    "FMT002": f"{_REFUSED} Its limit is the same.",
    "FMT003": _REFUSED,
    "FMT004": f"{_REFUSED} 200 000 nested lists end in its recursion limit, not in a crash.",
    "FMT005": f"{_ACCEPTED} Two tensors of one key may even differ in dtype. The format forbids "
    "it, and which of the two a reader takes is its own affair.",
    "FMT006": _REFUSED,
    "FMT007": _REFUSED,
    "FMT008": _REFUSED,
    "FMT009": _REFUSED,
    "FMT010": "safetensors 0.8.0 refuses unknown dtypes, but reads bytes, 4-bit, 8-bit and complex "
    "values: a tensor of bytes may be an archive that zipfile opens.",
    "FMT011": f"{_ACCEPTED} 20 000 tensors without a value are no error there.",
    "FMT012": f"{_ACCEPTED} Empty keys, keys of a megabyte, with a null character, or like "
    "../../etc/passwd are all the same to it.",
    "FMT013": f"{_ACCEPTED} Blanks before the header and unaligned data pass.",
    "FMT014": "safetensors 0.8.0 takes the pointer's first letters for a length and says that the "
    "header is too large.",
    "FMT016": f"{_ACCEPTED} Five million characters of metadata were no error.",
    "CFG002": "Python's json takes the last of two equal keys.",
    "CFG003": "PEFT 0.21.2 fails on a type that it does not know.",
    "CFG004": "vLLM has room for ranks of 1, 8, 16, 32, 64, 128, 256, 320 and 512; the default of "
    "its max_lora_rank is 16.",
    "CFG005": f"{_SILENT} llama.cpp takes alpha 0 for scale 1; Ollama reads whole numbers only.",
    "CFG006": f"{_SILENT} With fewer modules listed than there were tensors, the effect on a small "
    "Llama fell from 0.572 to 0.048.",
    "CFG007": "PEFT 0.21.2 warns of missing magnitudes and goes on; TGI and LoRAX ignore those "
    "that are there; vLLM and SGLang refuse DoRA.",
    "CFG009": "PEFT 0.21.2 replicates as often as the field says and only warns; vLLM refuses it; "
    "SGLang, TGI, LoRAX, TensorRT-LLM and Ollama ignore it.",
    "CFG010": "vLLM refuses such adapters; SGLang, TGI, LoRAX, llama.cpp, TensorRT-LLM and Ollama "
    "serve them on the unchanged base. PEFT repeats the initialisation, which changes the base.",
    "CFG011": "PEFT 0.21.2 drops fields that it does not know, with a warning; vLLM without one.",
    "TEN001": "PEFT 0.21.2 warns of missing keys and goes on: the effect is exactly 0. TGI and "
    "LoRAX drop keys of another form without a word.",
    "TEN002": "PEFT 0.21.2 leaves the random start in place, with a warning; TGI and LoRAX skip "
    "the module; llama.cpp refuses it; vLLM fails late, on a missing tensor.",
    "TEN003": "Ollama guesses the orientation from which side is longer, so a rank above the width "
    "flips the factor.",
    "TEN004": "TGI and LoRAX scale by the config's r, llama.cpp by the tensor's rank.",
    "TEN005": "PEFT 0.21.2, vLLM, TGI and LoRAX skip what they do not find, without a word; "
    "llama.cpp refuses it by name.",
    "TEN006": "TGI and LoRAX leave out the module in all layers if one layer lacks it; SGLang "
    "fills with zeros.",
    "TEN007": f"{_SILENT} int8 factors are truncated to no effect.",
    "TEN009": "TGI and LoRAX ignore saved modules and magnitudes without a word; vLLM and "
    "llama.cpp refuse what they do not know.",
    "BASE001": "PEFT often writes a path of the training machine. vLLM's resolver compares the "
    "text with the name under which the base is served.",
    "BASE002": "vLLM copies a smaller factor into a larger buffer of zeros and serves it; SGLang "
    "asserts at the first use; llama.cpp refuses it by name.",
    "BASE003": f"{_SILENT} Engines compare names or architectures at most, never values.",
    "BASE004": "llama.cpp refuses a head on a tied base.",
    "NUM001": _SILENT,
    "NUM003": _SILENT,
    "SEC001": "vLLM looks for .bin and .pt where there is no safetensors file; TensorRT-LLM opens "
    ".nemo archives with a plain torch.load.",
    "SEC002": f"{_SILENT} Any library may stand in auto_mapping.",
    "SEC010": "PEFT 0.21.2 and vLLM match with Python's re: ([a-z_.0-9]+)+! as target_modules, or "
    "as a key of rank_pattern, hung PEFT on a model of two layers.",
}
