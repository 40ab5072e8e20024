"""What a database's schema asks of a server, and what one of before misses in a newer one."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import sqlalchemy as sa


class Column(NamedTuple):
    """One column: what it holds, and whether a row may have nothing there, or leave it out."""

    kind: sa.types.TypeEngine[object]
    nullable: bool
    optional: bool


class Rule(NamedTuple):
    """What is refused; ``columns`` are those that it is about, ``text`` is that of a check."""

    table: str
    what: str
    columns: frozenset[str]
    text: str = ""


class Shape(NamedTuple):
    """A schema as its servers meet it."""

    columns: dict[tuple[str, str], Column]
    rules: frozenset[Rule]
    indexes: frozenset[tuple[str, tuple[str, ...]]]


def shape(connection: sa.Connection) -> Shape:
    """Return the schema of a database."""
    inspector = sa.inspect(connection)
    tables = inspector.get_table_names()
    columns = {
        (table, column["name"]): Column(
            column["type"],
            column["nullable"],
            bool(column["nullable"] or column["default"] or column.get("identity")),
        )
        for table in tables
        for column in inspector.get_columns(table)
    }
    rules = frozenset(rule for table in tables for rule in _rules(inspector, table, columns))
    indexes = frozenset(
        (table, tuple(map(str, index["column_names"])))
        for table in tables
        for index in inspector.get_indexes(table)
        if not _is_partial(index) and "duplicates_constraint" not in index
    )
    return Shape(columns, rules, indexes)


def _is_partial(index: sa.engine.interfaces.ReflectedIndex) -> bool:
    return any(option.endswith("_where") for option in index.get("dialect_options", {}))


def _rules(
    inspector: sa.Inspector, table: str, columns: dict[tuple[str, str], Column]
) -> Iterator[Rule]:
    unique = [inspector.get_pk_constraint(table)["constrained_columns"]]
    unique += [one["column_names"] for one in inspector.get_unique_constraints(table)]
    unique += [
        list(map(str, one["column_names"]))
        for one in inspector.get_indexes(table)
        if one["unique"] and not _is_partial(one)
    ]
    for names in unique:
        yield Rule(table, "unique", frozenset(names))
    for key in inspector.get_foreign_keys(table):
        yield Rule(table, f"in {key['referred_table']}", frozenset(key["constrained_columns"]))
    mine = {column for owner, column in columns if owner == table}
    for check in inspector.get_check_constraints(table):
        text = check["sqltext"]
        named = frozenset(mine & set(re.findall(r"\w+", text)))
        yield Rule(table, f"check {check['name']}", named, text)


def missed(before: Shape, after: Shape) -> set[str]:
    """Return what servers of an older schema miss in a newer one, each thing in a few words."""
    return {*_of_columns(before, after), *_of_rules(before, after), *_of_indexes(before, after)}


def _of_columns(before: Shape, after: Shape) -> Iterator[str]:
    tables = {table for table, _ in before.columns}
    for (table, name), column in after.columns.items():
        known = before.columns.get((table, name))
        if table in tables and not column.optional and (known is None or known.optional):
            yield f"{table}.{name} must be given"
        if known and column.nullable and not known.nullable:
            yield f"{table}.{name} may be absent"
        if known and not _holds(column.kind, known.kind):
            yield f"{table}.{name} was {known.kind!r}"
    yield from (f"{table}.{name} is gone" for table, name in before.columns.keys() - after.columns)


def _holds(kind: sa.types.TypeEngine[object], before: sa.types.TypeEngine[object]) -> bool:
    if isinstance(kind, sa.String) and isinstance(before, sa.String):
        return (kind.length or math.inf) >= (before.length or math.inf)
    return repr(kind) == repr(before)


def _of_rules(before: Shape, after: Shape) -> Iterator[str]:
    for rule in after.rules - before.rules:
        if all((rule.table, column) in before.columns for column in rule.columns):
            yield f"{rule.table}: {rule.what} of {', '.join(sorted(rule.columns))} is new"
    for rule in before.rules - after.rules:
        if rule.what == "unique":  # statements say what happens when it is broken
            yield f"{rule.table}: {rule.what} of {', '.join(sorted(rule.columns))} is gone"


def _of_indexes(before: Shape, after: Shape) -> Iterator[str]:
    for table, columns in before.indexes:
        if not any(
            table == other and names[: len(columns)] == columns for other, names in after.indexes
        ):
            yield f"{table}: index of {', '.join(columns)} is gone"
