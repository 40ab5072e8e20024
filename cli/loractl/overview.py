"""How ``--help`` lists commands: in sections, each with its whole first sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LONGEST = 200


class Overview(click.Group):
    """A group whose help wraps what commands do, where click would cut it off.

    Attributes:
        sections: titles and names of the commands under them; empty: one section in name order.
    """

    sections: Mapping[str, Sequence[str]] = {}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with what they do."""
        for title, names in (self.sections or {"Commands": self.list_commands(ctx)}).items():
            with formatter.section(title):
                formatter.write_dl([(name, _summary(self.commands[name])) for name in names])


def _summary(command: click.Command) -> str:
    return command.get_short_help_str(_LONGEST)
