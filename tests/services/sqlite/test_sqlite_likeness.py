"""A file whose tables are not ours is refused before any statement runs on it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from pyworkflow.errors import StorageError
from pyworkflow.services.sqlite import _schema, _schema_check
from pyworkflow.testing._updates import step
from tests.services.sqlite.sqlite_world import Place, lease, play
from tests.services.sqlite.test_sqlite_damage import by_hand

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


def remade(table: str, old: str, new: str) -> list[str]:
    """The statements that make a table anew with another text."""
    made = _schema._script(_schema.SCHEMA_VERSION)
    (script,) = [each for each in made if f"CREATE TABLE {table} " in each]
    assert old in script
    added = [each for each in made if f" ON {table} " in each or f"ALTER TABLE {table} " in each]
    return [f"DROP TABLE {table}", script.replace(old, new), *added]


REFUSED = {
    "a trigger": [f"CREATE TRIGGER t AFTER UPDATE ON executions BEGIN {ENDLESS}; END"],
    "a trigger, 't'": [f'CREATE TRIGGER t BEFORE INSERT ON "Operations" BEGIN {ENDLESS}; END'],
    "a view 'history'": ["DROP TABLE history", f"CREATE VIEW history AS {ENDLESS}"],
    "a view 'executions'": ["DROP TABLE executions", f"CREATE VIEW Executions AS {ENDLESS}"],
    "no table 'history'": ["DROP TABLE history"],
    "no index 'due'": ["DROP INDEX due"],
    "the index 'due' as": ["DROP INDEX due", "CREATE INDEX due ON executions (workflow, wake_ms)"],
    "an index, 'i'": ["CREATE INDEX i ON executions (length(hex(zeroblob(tokens))))"],
    "an index, 'j'": ["CREATE INDEX j ON executions (name) WHERE hex(zeroblob(tokens)) > ''"],
    "an index, 'k'": ["CREATE UNIQUE INDEX k ON executions (workflow)"],
    "a generated column": [
        "ALTER TABLE executions ADD COLUMN g AS (length(hex(zeroblob(tokens))))"
    ],
    "a check": ["ALTER TABLE executions ADD COLUMN g CHECK (hex(zeroblob(tokens)) > '')"],
    "a checked column": remade("operations", "deadlines BLOB", "deadlines BLOB CHECK (key < 9)"),
    "a collation": remade("executions", "name TEXT", "name TEXT COLLATE NOCASE"),
    "without 'name": ["ALTER TABLE executions RENAME COLUMN name TO title"],
    "a quoted name": remade(
        "history", "lines BLOB NOT NULL", '"lines blob not null", lines DEFAULT (random())'
    ),
    "a column that refuses rows": remade(
        "operations", "deadlines BLOB", "deadlines BLOB, more TEXT NOT NULL"
    ),
    "a table of another kind": remade("history", "NOT NULL)", "NOT NULL) STRICT"),
}
PASSED = {
    "columns": [
        "ALTER TABLE executions ADD COLUMN note",
        "ALTER TABLE executions ADD COLUMN \"my note\" VARCHAR (20) NOT NULL DEFAULT 'a, (b'",
        "ALTER TABLE operations ADD COLUMN size INTEGER DEFAULT -1",
        "ALTER TABLE history ADD COLUMN seen",
        "ALTER TABLE owners ADD COLUMN seen",
    ],
    "an index": ['CREATE INDEX i ON executions ("parent_id", name DESC)'],
    "tables and views of others": [
        "CREATE TABLE kept AS SELECT * FROM executions",
        f"CREATE VIEW seldom AS {ENDLESS}",
        "CREATE TRIGGER t AFTER INSERT ON kept BEGIN SELECT 1; END",
    ],
    "statistics": ["ANALYZE"],
    "the order of columns": remade(
        "executions",
        "workflow TEXT NOT NULL,\n        name TEXT NOT NULL",
        'name /* first */ TEXT NOT NULL, "workflow" text  NOT NULL',
    ),
}


def made(path: Path, statements: list[str]) -> Place:
    async def scene(here: Place) -> None:
        here.open()

    play(path, scene)
    here = Place(path)
    by_hand(here, *statements)
    return here


@pytest.mark.parametrize("what", REFUSED)
def test_what_hangs_on_our_tables_is_refused_before_it_runs(tmp_path: Path, what: str) -> None:
    here = made(tmp_path / "x.db", REFUSED[what])
    before = here.path.read_bytes() if isinstance(here.path, Path) else b""
    with pytest.raises(StorageError, match=r"Expected the tables that PyWorkflow makes.*x\.db"):
        here.open()
    assert (tmp_path / "x.db").read_bytes() == before


@pytest.mark.parametrize(
    "what", [each for each in REFUSED if each.startswith(("a trig", "a view"))]
)
def test_the_error_names_what_is_in_the_way(tmp_path: Path, what: str) -> None:
    with pytest.raises(StorageError, match=f"found {what}"):
        made(tmp_path / "x.db", REFUSED[what]).open()


@pytest.mark.parametrize("what", PASSED)
def test_what_stands_in_nobody_s_way_is_passed_over(tmp_path: Path, what: str) -> None:
    made(tmp_path / "x.db", PASSED[what])

    async def scene(here: Place) -> None:
        service = here.open()
        await service.start("greet", "1", execution_name="ann")
        (holder,) = await lease(service, "me")
        await holder.commit(step("a"))
        (shown,) = await service.list(execution_name="ann")
        assert (shown.workflow_name, shown.problem) == ("greet", None)
        assert len(await service.history(holder.id)) == 2

    play(tmp_path / "x.db", scene)


@pytest.mark.parametrize("what", ["a trigger", "a view 'history'", "a view 'executions'"])
def test_what_is_hung_on_them_meanwhile_is_refused_before_it_runs(
    tmp_path: Path, what: str
) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        execution_id = await service.start("greet", "1")
        by_hand(here, *REFUSED[what])
        for _ in range(2):
            for request in (
                service.start("greet", "2"),
                service.list(),
                service.history(execution_id),
                service.claim_due("me", ["greet"], 5),
            ):
                with pytest.raises(StorageError, match="tables that PyWorkflow makes"):
                    await request

    play(tmp_path / "x.db", scene)


def test_the_script_is_like_itself() -> None:
    connection = sqlite3.connect(":memory:")
    assert _schema_check.difference(connection, ()) is None
    for statement in _schema._script(_schema.SCHEMA_VERSION):
        connection.execute(statement)
    assert _schema_check.difference(connection, _schema._script(_schema.SCHEMA_VERSION)) is None
    connection.close()
