"""Every rule with its reason, as data; the command ``rule`` and the docs are made from it.

Rules of the files are checked by the readers of :mod:`rankloom.tensorfile` and
:mod:`rankloom.adapter`, the others by the functions of this package.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rankloom.finding import Severity
from rankloom.validate.engines.features import FEATURES
from rankloom.validate.evidence import EVIDENCE
from rankloom.validate.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Mapping

_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO
_AGAIN = "Save or copy the file again."
_PEFT = "Save the adapter again with PEFT's save_pretrained."

_ALL = (
    Rule("FMT001", _E, "The tensor file is not empty", "An empty file has no weights.", _AGAIN),
    Rule(
        "FMT002",
        _E,
        "The header has at most 100 MB",
        "A larger one is refused by every reader, or fills its memory.",
        _AGAIN,
    ),
    Rule("FMT003", _E, "The header lies within the file", "The file is cut off.", _AGAIN),
    Rule("FMT004", _E, "The header is a JSON object", "Nothing can be read otherwise.", _AGAIN),
    Rule(
        "FMT005",
        _E,
        "No key occurs twice",
        "Of two equal keys one reader takes the first and another the last: what was checked is "
        "not what is loaded.",
        _AGAIN,
    ),
    Rule(
        "FMT006",
        _E,
        "Tensors neither overlap nor leave holes",
        "Bytes that belong to no tensor or to two can hide a second content.",
        _AGAIN,
    ),
    Rule(
        "FMT007",
        _E,
        "Nothing lies behind the last tensor",
        "An appended archive makes the file two files at once.",
        _AGAIN,
    ),
    Rule("FMT008", _E, "All tensors lie within the file", "The file is cut off.", _AGAIN),
    Rule(
        "FMT009",
        _E,
        "Shape, dtype and bytes of a tensor agree",
        "Readers that multiply without care would read other memory.",
        _AGAIN,
    ),
    Rule(
        "FMT010",
        _E,
        "Every dtype is known and fit for weights",
        "A tensor of plain bytes can hold any file, an archive too.",
        "Save the weights in float32, float16 or bfloat16.",
    ),
    Rule(
        "FMT011",
        _E,
        "The number of tensors is bounded",
        "A small file of countless empty tensors costs its readers minutes.",
        "Remove the empty tensors.",
    ),
    Rule(
        "FMT012",
        _E,
        "Every key is a tensor name",
        "Empty, huge or path-like keys break tools that print or split them.",
        "Name tensors as the model's state dict does.",
    ),
    Rule(
        "FMT013",
        _W,
        "The header is aligned and begins at once",
        "Some readers refuse it, others copy instead of mapping the file.",
        "Save it again with safetensors.",
    ),
    Rule(
        "FMT014",
        _E,
        "The file is not a Git LFS pointer",
        "The clone did not download the weights.",
        "Run 'git lfs pull'.",
    ),
    Rule(
        "FMT015",
        _E,
        "The file is safetensors, as its name says",
        "A pickle under this name runs code in tools that look at the content.",
        "Save the adapter with safe_serialization=True.",
    ),
    Rule(
        "FMT016",
        _E,
        "Metadata are short plain text",
        "They are printed by tools, and large ones hide content.",
        "Remove the metadata.",
    ),
    Rule("CFG001", _E, "The config can be read", "Rank and scale are nowhere else.", _PEFT),
    Rule(
        "CFG002",
        _E,
        "No config field occurs twice",
        "Readers differ in which one they take.",
        "Remove one of them.",
    ),
    Rule(
        "CFG003",
        _E,
        "The config names its kind",
        "Without peft_type nobody can tell what the tensors mean.",
        "Write the peft_type of the training.",
    ),
    Rule(
        "CFG004",
        _E,
        "Ranks are whole numbers from 1 to 65536",
        "The scale is alpha/r.",
        "Write the rank that the tensors have.",
    ),
    Rule(
        "CFG005",
        _E,
        "Alphas are positive numbers",
        "0 switches the adapter off (or, in llama.cpp, to scale 1), a negative one inverts it.",
        "Write the alpha of the training.",
    ),
    Rule(
        "CFG006",
        _E,
        "target_modules and tensors name the same modules",
        "PEFT builds its modules from the config: tensors of other modules are dropped without a "
        "word, modules without tensors keep random values.",
        "List in target_modules exactly the modules that have tensors.",
    ),
    Rule(
        "CFG007",
        _E,
        "Options of the config and tensors agree",
        "DoRA without its magnitudes, or magnitudes without DoRA, is another model; so is one "
        "whose trained biases or tokens the file does not hold.",
        _PEFT,
    ),
    Rule(
        "CFG008",
        _E,
        "The config beside recorded weights is the recorded one",
        "The same weights under another scale are another adapter, which nobody pushed.",
        "Pull it again; if the change was meant, remove rankloom.json and push it anew.",
    ),
    Rule(
        "CFG009",
        _E,
        "No layer is replicated",
        "Replicated layers share their storage, so merging into one changes the others.",
        "Merge the adapter with PEFT, or train it without layer_replication.",
    ),
    Rule(
        "CFG010",
        _E,
        "The base was not changed by the initialisation",
        "PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA subtract from the base first, so W + s·B·A is off "
        "by more than the adapter itself.",
        "Save with path_initial_model_for_weight_conversion=….",
    ),
    Rule(
        "CFG011",
        _E,
        "Every field is known or empty",
        "A field that is ignored may be the one that changes the result.",
        "Use a rankloom that knows the field, or remove it.",
    ),
    Rule(
        "CFG012",
        _E,
        "The kind of adapter is one that rankloom reads",
        "It would be applied wrongly or in part.",
        "Merge the adapter with PEFT, or train it without the option.",
    ),
    Rule(
        "TEN001",
        _E,
        "Keys begin with base_model.model. once",
        "PEFT finds no tensor otherwise and the adapter has no effect, without an error.",
        _PEFT,
    ),
    Rule(
        "TEN002",
        _E,
        "Every module has both factors",
        "PEFT leaves the missing one at its random start; engines drop the module.",
        _PEFT,
    ),
    Rule(
        "TEN003",
        _E,
        "Factors are not transposed",
        "lora_A is (rank, in) and lora_B is (out, rank).",
        "Transpose the factor.",
    ),
    Rule(
        "TEN004",
        _E,
        "Ranks of tensors and config agree",
        "The scale is alpha/r: with another r it is silently wrong.",
        "Correct r or rank_pattern.",
    ),
    Rule(
        "TEN005",
        _E,
        "Every tensor changes a tensor of the base",
        "Engines and PEFT skip what they do not find, and run the plain base there.",
        "Use the base that the adapter was trained on.",
    ),
    Rule(
        "TEN006",
        _W,
        "Every layer has the modules that other layers have",
        "Some engines (TGI, LoRAX) then drop the module in all layers.",
        "Nothing, if only some layers were trained.",
    ),
    Rule(
        "TEN007",
        _E,
        "Factors are F32, F16 or BF16",
        "PEFT truncates integers to no effect, and engines cast or refuse the others.",
        "Save the adapter in float32 or 16 bits.",
    ),
    Rule(
        "TEN008",
        _E,
        "All factors have one dtype",
        "Engines load all factors in the dtype of the first, which rounds the others.",
        "Save the adapter in one dtype.",
    ),
    Rule(
        "TEN009",
        _E,
        "Every tensor is of a kind that rankloom reads",
        "An ignored tensor is a part of the adapter that is lost.",
        "Merge the adapter with PEFT, or save it without these tensors.",
    ),
    Rule(
        "BASE001",
        _E,
        "The base is named",
        "Nobody can tell what the adapter was trained on.",
        "Push it with --base.",
    ),
    Rule(
        "BASE002",
        _E,
        "Factors have the shape of the base tensor",
        "vLLM pads smaller ones with zeros and serves the result.",
        "Use the base that the adapter was trained on.",
    ),
    Rule(
        "BASE003",
        _E,
        "The base is the one that the adapter was made for",
        "Another base of the same shape loads without an error and gives nonsense. A record of a "
        "base is held to its own fingerprint, too.",
        "Use the recorded base, or train again on this one; record a base from its folder.",
    ),
    Rule(
        "BASE004",
        _E,
        "No target is tied to another tensor",
        "A tied head is the input embedding once more. Applying gives each a tensor of its own; an "
        "engine that serves the adapter on the tied base changes both, or loses one.",
        "For such engines untie the base first (tie_word_embeddings=false, with its own head).",
    ),
    Rule(
        "BASE005",
        _E,
        "Saved modules have as many rows as those of the base",
        "PEFT and engines fail on another vocabulary, or read past the end of it. Applying writes "
        "the new size.",
        "Resize the base first (resize_token_embeddings), or apply the adapter to it.",
    ),
    Rule(
        "BASE006",
        _E,
        "The changed tensors of the base are floats",
        "Adding to quantised values means to dequantise, add and quantise again, which loses more "
        "than the adapter adds. Another dtype (--dtype) would make its scales others.",
        "Use the base before quantisation. To change float modules only, leave out --dtype.",
    ),
    Rule(
        "BASE007",
        _E,
        "The base can be read",
        "Index and shards disagree, or there are no safetensors.",
        "Copy or save the base again.",
    ),
    Rule(
        "BASE008",
        _I,
        "The base tells how its square matrices are stored",
        "transformers' Conv1D keeps (in, out), torch's Linear (out, in). A square matrix with a "
        "bias, without the config of a known model, may be either; it is taken as a Linear's.",
        "Put the config.json of its model beside the base, or apply to the live model.",
    ),
    Rule(
        "NUM001",
        _E,
        "All values are finite",
        "One NaN or infinity makes every output NaN.",
        "Go back to a checkpoint from before the training diverged.",
    ),
    Rule(
        "NUM002",
        _I,
        "No delta is far from the others",
        "A single delta that is a thousand times as large as the rest, or has one direction where "
        "they have many, is mostly a slip or an edit. It is advice only: backdoors exist that "
        "stand out in no such way.",
        "Look at how it was trained; evaluate it before it is used.",
    ),
    Rule(
        "NUM003",
        _E,
        "Some factor B is not zero",
        "B begins at zero: the adapter was not trained, or the wrong weights were saved.",
        "Save the adapter after training.",
    ),
    Rule(
        "PRB001",
        _E,
        "The base answers otherwise with the adapter, and in finite numbers",
        "What has no effect on a few ordinary tokens that meet what it changes was saved before it "
        "was trained; finite weights may still be so large that answers overflow.",
        "Compare names and base with those of the training, and go back to an earlier checkpoint.",
        option="--probe",
    ),
    Rule(
        "PRB002",
        _E,
        "The base answers as it did when the adapter was pushed",
        "The same files on the same base give the same numbers: if not, the base is loaded "
        "otherwise, or the software that computes them is broken.",
        "Push it again with --probe if the change was meant, such as a new version of transformers "
        "that repairs the model.",
        option="--probe",
    ),
    Rule(
        "SEC001",
        _E,
        "The folder holds an adapter's files only",
        "Pickles and scripts run code on the machine that loads them.",
        "Remove the file.",
    ),
    Rule(
        "SEC002",
        _E,
        "The config asks nobody to import code",
        "Loaders import the module that it names.",
        "Remove the field.",
    ),
    Rule(
        "SEC003",
        _E,
        "The base's name is a repository or a plain path",
        "A loader would fetch the address that an adapter's author wrote there.",
        "Write the base's repository id, or null.",
    ),
    Rule(
        "SEC004",
        _E,
        "Files lie in the folder and have distinct plain names",
        "Links and odd names reach files outside it.",
        "Copy the folder with its links followed.",
    ),
    Rule(
        "SEC005",
        _E,
        "The chat template is the base's",
        "A template decides what the model is told; one that differs can add words that nobody "
        "wrote, for certain questions only.",
        "Remove the template from the adapter's folder, or put it into the base's.",
    ),
    Rule(
        "SEC006",
        _E,
        "Chat templates end",
        "Engines render the template for each request; loops in loops over large ranges never "
        "end, and large repetitions fill the memory. rankloom renders none.",
        "Remove the template from the adapter's folder.",
    ),
    Rule(
        "SEC010",
        _E,
        "Patterns are matched in bounded time",
        "PEFT and vLLM hang on a regular expression of a few characters.",
        "List the modules' names instead.",
    ),
)

RULES: Mapping[str, Rule] = {
    rule.id: replace(rule, evidence=EVIDENCE.get(rule.id, rule.evidence))
    for rule in (*_ALL, *(feature.rule for feature in FEATURES.values()))
}
