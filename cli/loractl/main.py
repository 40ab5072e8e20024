"""The command line: one group, its commands, and how errors end.

A command's module imports nothing but click at its top, so that ``loractl --help`` is instant and
torch is loaded only by the commands that touch a tensor.
"""

from __future__ import annotations

import click

from loractl.commands import (
    access,
    adapters,
    admin,
    apply,
    bases,
    cache,
    compose,
    convert,
    find,
    interference,
    namespaces,
    rule,
    service,
    signing,
    tune,
    validate,
)
from loractl.failures import ErrorAwareGroup


@click.group(cls=ErrorAwareGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rankloom", prog_name="loractl")
def main() -> None:
    r"""Version, validate, combine and apply LoRA adapters: exact, or refused.

    \b
    A REF names a version:  zh-lang   acme/zh-lang   zh-lang@v3   zh-lang:prod
    A DIR is a folder:      ./out     /data/out      ~/out        out/
    Without RANKLOOM_URL or a login, everything works on a registry embedded in this machine.
    """


SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Versions": (
        adapters.push,
        adapters.pull,
        adapters.list_adapters,
        adapters.show,
        find.search,
        find.related,
        adapters.alias,
        find.remark,
        adapters.yank,
        signing.sign,
        signing.verify,
    ),
    "Adapters and bases": (
        validate.validate,
        rule.rule,
        compose.compose,
        apply.apply,
        interference.interference,
        tune.tune,
        convert.convert,
        bases.base,
    ),
    "Registry": (
        service.login,
        service.serve,
        namespaces.namespace,
        access.token,
        access.audit,
        cache.cache,
        admin.admin,
    ),
}

for command in (command for commands in SECTIONS.values() for command in commands):
    main.add_command(command)
main.sections = {
    title: [command.name or "" for command in commands] for title, commands in SECTIONS.items()
}

# click keeps the lines of a paragraph after a backspace, which a raw docstring spells out.
for described in (main, *main.commands.values()):
    described.help = (described.help or "").replace("\\b\n", "\b\n")
