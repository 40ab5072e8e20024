"""The public door: a few functions over one default client.

::

    from rankloom import sdk

    sdk.push("out/checkpoint-900", "zh-lang", base="./base", alias="prod")
    composition = sdk.compose(["zh-lang", "qa-task"], weights=[1, 0.5])
    composition.apply_to("base", "merged")

The functions are the methods of one :class:`Client` that follows ``RANKLOOM_URL`` and
``RANKLOOM_HOME`` (see :mod:`rankloom.config`); without a configured registry they work on the one
that is embedded in this process. Make a ``Client`` of your own to speak to several registries.
"""

from __future__ import annotations

from rankloom.client import Client

_default = Client()

add_base = _default.add_base
alias = _default.alias
compose = _default.compose
compose_locked = _default.compose_locked
compose_recipe = _default.compose_recipe
fingerprint = _default.fingerprint
interference = _default.interference
list = _default.list
list_bases = _default.list_bases
pull = _default.pull
push = _default.push
related = _default.related
remark = _default.remark
repair = _default.repair
resolve = _default.resolve
search = _default.search
show = _default.show
show_base = _default.show_base
sign = _default.sign
sign_folder = _default.sign_folder
tune = _default.tune
unyank = _default.unyank
validate = _default.validate
verify = _default.verify
yank = _default.yank

__all__ = [
    "Client",
    "add_base",
    "alias",
    "compose",
    "compose_locked",
    "compose_recipe",
    "fingerprint",
    "interference",
    "list",
    "list_bases",
    "pull",
    "push",
    "related",
    "remark",
    "repair",
    "resolve",
    "search",
    "show",
    "show_base",
    "sign",
    "sign_folder",
    "tune",
    "unyank",
    "validate",
    "verify",
    "yank",
]
