"""The names that Stability's own checkpoints give the modules of a UNet, as kohya's SDXL files do.

diffusers numbers blocks and the layers in each; Stability numbers all layers through. With L the
config's ``layers_per_block``, layer l of block b is ``input_blocks.{1 + b(L+1) + l}`` on the way
down and ``output_blocks.{b(L+1) + l}`` on the way up.
"""

from __future__ import annotations

import re

UNET = "UNet2DConditionModel"
"""diffusers' class of which these are the names, in ``_class_name`` of its config."""

_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")
_RESIZE = re.compile(r"(down|up)_blocks\.(\d+)\.(?:down|up)samplers\.0\.conv")
_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_WHOLE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}


def spelling(module: str, layers: int, *, attends: bool) -> str | None:
    """Return a module's name in Stability's checkpoints; ``None``: it has none.

    Args:
        module: its name in diffusers.
        layers: ``layers_per_block`` of the config.
        attends: the module's block has attention, so that a step of size comes third in it.
    """
    if found := _BLOCK.fullmatch(module):
        way, block, kind, layer, rest = found.groups()
        number = int(block) * (layers + 1) + int(layer)
        start = f"input_blocks.{number + 1}" if way == "down" else f"output_blocks.{number}"
        return f"{start}.{int(kind == 'attentions')}.{_inner(kind, rest)}"
    if found := _MIDDLE.fullmatch(module):
        kind, layer, rest = found.groups()
        place = 1 if kind == "attentions" else 2 * int(layer)
        return f"middle_block.{place}.{_inner(kind, rest)}"
    if found := _RESIZE.fullmatch(module):
        last = int(found[2]) * (layers + 1) + layers
        if found[1] == "down":
            return f"input_blocks.{last + 1}.0.op"
        return f"output_blocks.{last}.{2 if attends else 1}.conv"
    return _WHOLE.get(module)


def _inner(kind: str, rest: str) -> str:
    return _RESNET.get(rest, rest) if kind == "resnets" else rest


def spellings(modules: set[str], layers: int) -> dict[str, str]:
    """Return the module for each such name of a UNet's modules."""
    attending = {module.partition(".attentions.")[0] for module in modules}
    found = {}
    for module in modules:
        block = module.partition(".upsamplers.")[0]
        if name := spelling(module, layers, attends=block in attending):
            found[name] = module
    return found
