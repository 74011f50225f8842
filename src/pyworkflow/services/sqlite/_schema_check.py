"""Whether a file's tables are ours: its schema is compared before any statement runs on it.

A schema is code. A trigger, a view with the name of a table, a generated column, a CHECK or an
index on an expression can run anything inside our statements, even forever. So a file must have
what our script makes: each definition of each table, word for word, and on our tables nothing else
except plain columns and plain indexes.

The expected schema is not written down twice: the script is run in memory, and both schemas are
read from ``sqlite_master``. Definitions are compared as sets, since an added column comes last.
"""

from __future__ import annotations

import re
import sqlite3
from functools import cache
from typing import NamedTuple

_TOKEN = re.compile(
    r"""--[^\n]* | /\*.*?(?:\*/|\Z) | \s+          # nothing
    | ("(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\])  # a quoted name
    | ('(?:[^']|'')*')                             # a text
    | ([\w$.]+ | .)                                # a word, a number, a sign
    """,
    re.VERBOSE | re.DOTALL,
)
_PLAIN_COLUMN = re.compile(
    r"(?P<type>(?:[a-z_]\w* )*?(?:\( \d+ (?:, \d+ )?\) )?)"
    r"(?P<limits>(?:null |not null |default (?:[+-] )?(?:\d[\w.]*|'.*'|null|true|false) )*)",
    re.DOTALL,
)
"""The words that may follow the name, each followed by a space."""
_CODE = frozenset(
    [
        "as",
        "always",
        "check",
        "collate",
        "conflict",
        "constraint",
        "foreign",
        "generated",
        "primary",
        "references",
        "unique",
    ]
)
"""Words that make a column more than a place for a value."""
_PLAIN_INDEX = re.compile(
    r"create index \S+ on \S+ \( \w+(?: asc| desc)?(?: , \w+(?: asc| desc)?)* \)"
)


class Object(NamedTuple):
    """A row of ``sqlite_master``; names in small letters, as SQLite compares them."""

    type: str
    name: str
    table: str
    sql: str


class _Table(NamedTuple):
    definitions: frozenset[tuple[str, ...]]
    """Columns and constraints, as their words: a quoted name is one, whatever it looks like."""
    options: tuple[str, ...]
    """Properties of the table itself: WITHOUT ROWID, STRICT, virtual."""


def difference(connection: sqlite3.Connection, script: tuple[str, ...]) -> str | None:
    """Return how the file differs from what ``script`` makes; `None` if it does not matter."""
    ours, found = _schema_of(script), _read(connection)
    if found == ours:
        return None
    tables = {each.name for each in ours if each.type == "table"}
    # Tables first: if a table is something else, its indexes are gone as well.
    ours_in_order = sorted(ours, key=lambda each: (each.type != "table", each.name))
    expected = {(each.type, each.name): each for each in ours_in_order}
    present = {(each.type, each.name): each for each in sorted(found)}
    for (kind, name), each in expected.items():
        other = present.get((kind, name))
        if other is None:
            instead = [row.type for row in found if row.name == name]
            if instead:
                return f"a {instead[0]} {name!r} in the place of the {kind} of that name"
            return f"no {kind} {name!r} (PyWorkflow makes it with: {' '.join(each.sql.split())})"
        why = _unlike(each, other)
        if why is not None:
            return why
    others = [each for key, each in present.items() if key not in expected]
    return next((why for each in others if (why := _in_the_way(each, tables)) is not None), None)


def _read(connection: sqlite3.Connection) -> frozenset[Object]:
    # The index of a UNIQUE constraint has no SQL text.
    rows = connection.execute(
        "SELECT type, lower(name), lower(tbl_name), sql FROM sqlite_master WHERE sql IS NOT NULL"
    )
    return frozenset(Object(*map(str, row)) for row in rows)


@cache
def _schema_of(script: tuple[str, ...]) -> frozenset[Object]:
    connection = sqlite3.connect(":memory:")
    try:
        for statement in script:
            connection.execute(statement)
        return _read(connection)
    finally:
        connection.close()


def _unlike(expected: Object, found: Object) -> str | None:
    """Return how ``found`` differs from ``expected``, `None` if it does not."""
    if expected.type != "table":
        if _words(found.sql) == _words(expected.sql) and found.table == expected.table:
            return None
        return f"the {found.type} {found.name!r} as {' '.join(found.sql.split())!r}"
    wanted, given = _table(expected.sql), _table(found.sql)
    if wanted.options != given.options:
        made, asked = " ".join(given.options), " ".join(wanted.options)
        return f"the table {found.name!r} made by {made!r}, not by {asked!r}"
    missing = wanted.definitions - given.definitions
    if missing:
        return f"the table {found.name!r} without {' '.join(min(missing))!r}"
    added = [each for each in given.definitions - wanted.definitions if not _is_plain(each)]
    return f"the table {found.name!r} with {' '.join(min(added))!r}" if added else None


def _is_plain(column: tuple[str, ...]) -> bool:
    """Return whether an added column can neither run anything nor refuse our rows."""
    match = _PLAIN_COLUMN.fullmatch("".join(f"{word} " for word in column[1:]))
    if match is None or _CODE.intersection((column[0], *match["type"].split())):
        return False
    return "not null" not in match["limits"] or "default" in match["limits"]


def _in_the_way(found: Object, tables: set[str]) -> str | None:
    """Return how a foreign object affects our tables, `None` if it does not."""
    if found.type == "trigger" and found.table in tables:
        return f"a trigger, {found.name!r}, on the table {found.table!r}"
    is_index = found.type == "index" and found.table in tables
    if is_index and not _PLAIN_INDEX.fullmatch(" ".join(_words(found.sql))):
        return f"an index, {found.name!r}, on the table {found.table!r} that is not a plain one"
    return None


def _words(sql: str) -> list[str]:
    """Return a definition's tokens in lower case, without comments or quotes around names."""
    words = []
    for quoted, text, other in _TOKEN.findall(sql):
        if quoted:
            words.append(quoted[1:-1].lower())
        elif text or other:
            words.append(text or other.lower())
    return words


def _table(sql: str) -> _Table:
    parts, part, options, depth = list[tuple[str, ...]](), list[str](), list[str](), 0
    for word in _words(sql):
        depth += (word == "(") - (word == ")")
        if depth == 0 or (depth == 1 and word == "(" and not part):
            options.append(word)
        elif depth == 1 and word == ",":
            parts.append(tuple(part))
            part = []
        else:
            part.append(word)
    return _Table(frozenset([*parts, tuple(part)]), tuple(options))
