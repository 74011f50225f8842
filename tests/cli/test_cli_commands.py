"""The commands, in this process: what they print where, and how they end."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import sys
from datetime import date, timedelta
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

import pyworkflow._cli
from pyworkflow import Client
from pyworkflow._cli import app as cli
from pyworkflow._cli.loading import split_target
from pyworkflow._protocol.executions import ExecutionStatus
from pyworkflow._protocol.records import Action, ErrorRecord, OperationType, Update
from pyworkflow._runtime.clock import SystemClock
from pyworkflow.errors import ServiceError, UsageError
from pyworkflow.services.sqlite import SqliteService

if TYPE_CHECKING:
    from collections.abc import Iterator

SHOP = Path(__file__).with_name("shop.py").read_text("utf-8")


@pytest.fixture(autouse=True)
def _logging_of_others() -> Iterator[None]:
    """A command sets up its process's logging; the tests that come after have theirs."""
    root, ours = logging.getLogger(), logging.getLogger("pyworkflow")
    handlers, level = list(root.handlers), ours.level
    yield
    root.handlers[:] = handlers
    ours.setLevel(level)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with ``shop.py``; what is imported from it is forgotten afterwards."""
    (tmp_path / "shop.py").write_text(SHOP, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def invoke(*words: str, stdin: str | None = None) -> Any:
    result = CliRunner().invoke(cli.app, list(words), input=stdin, prog_name="pyworkflow")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def document(*words: str) -> Any:
    result = invoke(*words, "--json")
    assert result.stdout.isascii()
    return json.loads(result.stdout)


def bodies(folder: Path) -> list[str]:
    return (folder / "bodies").read_text("utf-8").split()


# -- run -----------------------------------------------------------------------------------------


def test_a_run_prints_its_result_alone_on_stdout(folder: Path) -> None:
    result = invoke("run", "shop.py:order", "--input", '{"cents": 500}', "--skip-time")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == {"payment": "PAY-500"}
    for told in ["charging", "charge succeeded after 1s, attempt 2", "wait 5m over after 5m", "━"]:
        assert told in result.stderr
    assert "\x1b" not in result.stderr
    assert list(folder.glob("*.db*")) == []


def test_a_run_as_json_is_one_document(folder: Path) -> None:
    told = document("run", "shop.py:order", "--input", '{"cents": 5}', "--skip-time")
    assert told["status"] == "SUCCEEDED"
    assert told["input"] == {"cents": 5}
    assert told["result"] == {"payment": "PAY-5"}
    assert told["error"] is None


def test_the_input_may_come_from_stdin_and_from_a_file(folder: Path) -> None:
    (folder / "in.json").write_text('{"cents": 7}', "utf-8")
    for given, stdin in [("-", '{"cents": 7}'), ("@in.json", None)]:
        result = invoke("run", "shop.py:order", "--skip-time", "--input", given, stdin=stdin)
        assert json.loads(result.stdout) == {"payment": "PAY-7"}


def test_the_only_workflow_needs_no_name(folder: Path) -> None:
    (folder / "single.py").write_text(
        "from shop import number, order\nfrom pyworkflow import workflow\n"
        "@workflow\nasync def one() -> int:\n    return await number(1)\n"
        "handler = one\n",
        "utf-8",
    )
    assert invoke("run", "single.py", "--skip-time").stdout == "1\n"
    assert invoke("run", "single.py:order", "--skip-time", "--input", "{}").exit_code == 2


def test_a_module_can_be_run(folder: Path) -> None:
    assert invoke("run", "shop:wide", "--skip-time", "--input", '{"count": 3}').stdout == "3\n"


def test_a_failed_execution_says_why(folder: Path) -> None:
    result = invoke("run", "shop.py:refused", "--skip-time")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "refused: FAILED" in result.stderr
    assert r"FatalError: no \x1b[31msuch[/red] order" in result.stderr
    assert "in refuse" in result.stderr
    told = invoke("run", "shop.py:refused", "--skip-time", "--json")
    assert told.exit_code == 1
    assert json.loads(told.stdout)["error"]["type"].endswith("FatalError")


def test_a_run_is_kept_and_is_the_same_under_its_name(folder: Path) -> None:
    words = ["run", "shop.py:order", "--name", "first", "--db", "kept.db"]
    first = invoke(*words, "--skip-time", "--input", '{"cents": 1, "wait": "1d"}')
    assert first.exit_code == 0, first.stderr
    assert bodies(folder) == ["charge"]
    again = invoke(*words)
    assert again.stdout == first.stdout
    assert "2 operations recorded: not run again" in again.stderr
    reordered = invoke(*words, "--input", '{"wait": "1d", "cents": 1}')
    assert reordered.stdout == first.stdout
    other = invoke(*words, "--input", '{"cents": 2}')
    assert other.exit_code == 3
    assert "another input" in other.stderr
    assert bodies(folder) == ["charge"]


def test_an_execution_that_was_stopped_is_a_failure(folder: Path) -> None:
    with Client.local("pyworkflow.db", worker=False) as client:
        client.start("approval", {}, execution_name="a").stop("enough")
    result = invoke("run", "shop.py:approval", "--name", "a")
    assert result.exit_code == 1
    assert "approval: STOPPED" in result.stderr
    assert "enough" in result.stderr


def test_time_is_not_skipped_for_others(folder: Path) -> None:
    with Client.local("kept.db", worker=False) as client:
        client.start("order", {"cents": 1}, execution_name="sleeping")
    skipping = ["--skip-time", "--db", "kept.db"]
    result = invoke("run", "shop.py:wide", "--input", '{"count": 1}', *skipping)
    assert result.exit_code == 2
    assert "1 execution running in kept.db, such as 'sleeping'" in result.stderr
    assert [each["name"] for each in document("list", "--db", "kept.db")["executions"]] == [
        "sleeping"
    ]
    assert invoke("run", "shop.py:order", "--name", "sleeping", *skipping).exit_code == 0


# -- what is wrong with the command --------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("shop.py", "shop.py has 6 workflows; say which to run:\n  shop.py:order\n"),
        ("shop.py:nope", "no workflow has the name 'nope'; registered here: 'order'"),
        ("shop.py:", "no name follows the colon"),
        ("gone.py", "there is no file "),
        ("gone", "no module 'gone'"),
        ("syntax.py", "def (:"),
        ("raises.py", "return 1 / 0"),
        ("exits.py", "SystemExit: 4\nput what is to run"),
        ("needs.py", "'not_there'"),
        ("plain.py", "has no workflow"),
        ("json.py", "another name"),
        ("twice.py:order", "two workflows have the name 'order'"),
        (".", "expected FILE.py"),
    ],
)
def test_a_file_that_can_not_be_run_is_told(folder: Path, target: str, told: str) -> None:
    files = {
        "syntax": "x = 1\ndef (:\n",
        "raises": "print('hello')\ndef helper():\n    return 1 / 0\nhelper()\n",
        "exits": "import sys\nsys.exit(4)\n",
        "needs": "import not_there\n",
        "plain": "x = 1\n",
        "json": SHOP,
        "twice": "import shop\nfrom pyworkflow import workflow\nfirst = shop.order\n"
        "@workflow\nasync def order(): ...\n",
    }
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text, "utf-8")
    result = invoke("run", target, "--skip-time")
    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stdout == ""
    assert "_cli" not in result.stderr
    assert "importlib" not in result.stderr


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("{cents: 1}", "Expected JSON in --input"),
        ('{"cents": "many", "colour": 1}', "cents: "),
        ("[1, 2]", "does not fit workflow 'order'"),
        ("@gone.json", "gone.json"),
    ],
)
def test_an_input_that_does_not_fit_starts_nothing(folder: Path, given: str, told: str) -> None:
    result = invoke("run", "shop.py:order", "--input", given)
    assert result.exit_code == 2
    assert told in result.stderr
    assert not list(folder.glob("*.db")) or document("list")["executions"] == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["shop.py:order", "--input", '{"cents": "many"}'], 2),
        (["shop.py:wide"], 2),
        (["shop.py:wide", "--input", '{"count": 1}', "--name", "a b"], 2),
        (["shop.py:order", "--input", "[1]", "--db", "named.db"], 2),
        (["shop.py:order", "--input", "[1]", "--skip-time", "--db", "named.db"], 2),
    ],
)
def test_a_run_that_starts_nothing_makes_no_database(
    folder: Path, words: list[str], code: int
) -> None:
    assert invoke("run", *words).exit_code == code
    assert list(folder.glob("*.db*")) == []


def test_a_run_that_starts_nothing_leaves_the_database_that_is_there(folder: Path) -> None:
    words = ["run", "shop.py:wide", "--skip-time", "--db", "kept.db", "--input"]
    assert invoke(*words, '{"count": 1}').exit_code == 0
    assert invoke(*words, "[1]").exit_code == 2
    assert len(document("list", "--db", "kept.db")["executions"]) == 1


def test_a_bad_name_is_told(folder: Path) -> None:
    result = invoke("run", "shop.py:wide", "--input", '{"count": 1}', "--name", "a b")
    assert result.exit_code == 2
    assert "'a b'" in result.stderr


def test_a_command_that_does_not_exist_is_told(folder: Path) -> None:
    assert invoke("rnu").exit_code == 2
    assert invoke("run", "shop.py:order", "--now").exit_code == 2
    assert invoke("list", "--status", "ASLEEP").exit_code == 2


def test_the_codes_are_in_the_help() -> None:
    assert "1 the workflow failed" in " ".join(invoke("--help").stdout.split())


def test_the_version() -> None:
    assert invoke("--version").stdout == f"pyworkflow {metadata.version('pyworkflow')}\n"


def test_targets() -> None:
    assert split_target("a/b.py") == ("a/b.py", None)
    assert split_target("a/b.py:c") == ("a/b.py", "c")
    assert split_target("pkg.mod:c") == ("pkg.mod", "c")
    with pytest.raises(UsageError):
        split_target("a.py:")


@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["show", "x"],
        ["history", "x"],
        ["stop", "x"],
        ["callback", "succeed", "x"],
        ["callback", "fail", "x"],
        ["callback", "heartbeat", "x"],
    ],
)
def test_looking_makes_no_database(folder: Path, words: list[str]) -> None:
    result = invoke(*words)
    assert result.exit_code == 3
    assert "there is no database at" in result.stderr
    assert list(folder.glob("*.db*")) == []
    Path("text.db").write_text("this is no database, but a text " * 40, "utf-8")
    result = invoke(*words, "--db", "text.db")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


# -- looking -------------------------------------------------------------------------------------


@pytest.fixture
def kept(folder: Path) -> Path:
    """A folder with three executions: one that succeeded, one that failed, one that was started."""
    for words in (
        ["shop.py:order", "--name", "first", "--input", '{"cents": 500}'],
        ["shop.py:refused", "--name", "second"],
    ):
        invoke("run", *words, "--skip-time", "--db", "pyworkflow.db")
    with Client.local("pyworkflow.db", worker=False) as client:
        client.start("approval", {}, execution_name="third")
    return folder


def test_executions_are_listed_the_newest_first(kept: Path) -> None:
    told = document("list")
    assert not told["more"]
    assert {(each["name"], each["status"]) for each in told["executions"]} == {
        ("third", "RUNNING"),
        ("second", "FAILED"),
        ("first", "SUCCEEDED"),
    }
    shown = invoke("list").stdout
    assert [line.split()[:2] for line in shown.splitlines()[1:]] == [
        [each["name"], each["workflow_name"]] for each in told["executions"]
    ]


def test_the_list_can_be_filtered(kept: Path) -> None:
    def names(*words: str) -> list[str]:
        return [each["name"] for each in document("list", *words)["executions"]]

    assert names("--workflow", "order") == ["first"]
    assert names("--status", "failed") == ["second"]
    assert names("--status", "TIMED_OUT") == []
    assert len(names("--limit", "1")) == 1
    assert document("list", "--limit", "2")["more"]
    assert "no executions" in invoke("list", "--workflow", "nope").stderr
    assert "the newest 2 of more" in invoke("list", "--limit", "2").stderr


def test_one_that_can_not_be_read_is_listed_and_told_with_its_row(kept: Path) -> None:
    connection = sqlite3.connect("pyworkflow.db")
    with connection:
        connection.execute("UPDATE operations SET record = 7 WHERE key = 1 << 32")
    connection.close()
    listed = invoke("list")
    assert listed.exit_code == 0, listed.stderr
    told = f"can't be read: row {1 << 32} of operations, record"
    assert listed.stdout.count(told) == 1
    shown = invoke("show", document("list")["executions"][-1]["id"])
    assert shown.exit_code == 3
    assert told in shown.stderr


def test_an_execution_is_shown_by_name_by_id_and_by_the_beginning_of_its_id(kept: Path) -> None:
    by_name = document("show", "first")
    assert [operation["name"] for operation in by_name["operations"]] == ["charge", None]
    assert by_name["operations"][0]["attempt"] == 2
    assert document("show", by_name["id"]) == by_name
    assert document("show", by_name["id"][:-1]) == by_name
    shown = invoke("show", "first").stdout
    assert "first  SUCCEEDED" in shown
    assert "charge succeeded after" in shown
    assert 'attempt 2 = "PAY-500"' in shown


@pytest.mark.parametrize("command", ["show", "history", "stop"])
def test_an_execution_that_is_not_there_is_told(kept: Path, command: str) -> None:
    for wanted in ["nope", "0", ""]:
        result = invoke(command, wanted)
        assert result.exit_code == 3
        assert f"no execution has the name or id {wanted!r}" in result.stderr


def test_a_name_that_two_workflows_use_is_told_with_the_ids(kept: Path) -> None:
    with Client.local("pyworkflow.db", worker=False) as client:
        other = client.start("order", {"cents": 1}, execution_name="third")
    result = invoke("show", "third")
    assert result.exit_code == 2
    assert f"  {other.id}  order" in result.stderr
    assert document("show", other.id)["workflow_name"] == "order"


def test_ids_that_begin_alike_are_told(kept: Path) -> None:
    with Client.local("pyworkflow.db", worker=False) as client:
        ids = [client.start("wide", number).id for number in range(12)]
    begin = ids[0][:4]  # they begin with the time
    result = invoke("show", begin)
    assert result.exit_code == 2
    assert f"ids begin with {begin!r}: give more\n  " in result.stderr
    assert result.stderr.endswith("  wide\n  …\n")


def test_the_history_is_told_event_by_event(kept: Path) -> None:
    told = document("history", "first")
    assert [event["type"] for event in told["events"]] == [
        "ExecutionStarted",
        "StepStarted",
        "StepFailed",
        "StepStarted",
        "StepSucceeded",
        "WaitStarted",
        "WaitSucceeded",
        "ExecutionSucceeded",
    ]
    shown = invoke("history", "first").stdout.splitlines()
    # Shortly before midnight, each time has its date.
    types = [next(word for word in line.split() if word[0].isupper()) for line in shown]
    assert types == [event["type"] for event in told["events"]]
    assert r"\x1b[31mbusy[/red]" in shown[2]


def test_an_execution_is_stopped(kept: Path) -> None:
    assert "third is STOPPED" in invoke("stop", "third", "--reason", "no use").stderr
    told = document("show", "third")
    assert told["status"] == "STOPPED"
    assert told["error"]["message"] == "no use"


def test_a_stop_of_what_is_over_says_so_and_changes_nothing(kept: Path) -> None:
    assert invoke("stop", "third").exit_code == 0
    for name, status in (("first", "SUCCEEDED"), ("third", "STOPPED")):
        before = document("show", name)
        for words in (["stop", name], ["stop", name, "--json"]):
            result = invoke(*words, "--reason", "again")
            assert result.exit_code == 3
            assert result.stdout == ""
            assert f"found {name!r}, which is {status} since " in result.stderr
            assert "nothing was changed" in result.stderr
        assert document("show", name) == before


@pytest.mark.parametrize("command", ["show", "history", "stop"])
def test_a_name_that_is_not_utf8_is_one_that_nothing_has(kept: Path, command: str) -> None:
    result = invoke(command, "caf\udce9")
    assert result.exit_code == 3
    assert "no execution has the name or id" in result.stderr


def test_a_list_may_be_of_any_length(kept: Path) -> None:
    assert len(document("list", "--limit", str(2**70))["executions"]) == 3
    assert document("list", "--workflow", "\udce9")["executions"] == []


def test_skipped_time_is_written_with_its_dates(folder: Path) -> None:
    words = ["run", "shop.py:order", "--skip-time", "--input", '{"cents": 1, "wait": "40d"}']
    lines = invoke(*words).stderr.splitlines()
    dates = [line[:10] for line in lines if "charge" in line or "wait" in line]
    days = [date.fromisoformat(each) for each in dates if each[:1].isdigit()]
    assert len(days) >= 2
    assert max(days) - min(days) >= timedelta(days=39)


def test_what_a_frozen_worker_has_is_shown_and_released(kept: Path) -> None:
    async def freeze() -> None:
        service = SqliteService.open("pyworkflow.db", SystemClock().now_ms)
        (invocation,) = await service.claim_due("worker-1", ["approval"], 1, keep=True)
        begun = Update(id="s", type=OperationType.STEP, action=Action.START, name="hang")
        await service.commit(invocation.execution_id, invocation.token, (begun,))
        said = "The loop of the worker 'worker-1' has not answered for 7 s"
        stack = ('  File "shop.py", line 7, in hang\n    time.sleep(10**6)\n',)
        await service.report("worker-1", ErrorRecord(said, "WorkerFrozen", stack_trace=stack))
        await service.close()

    asyncio.run(freeze())
    assert "WorkerFrozen: The loop of the worker 'worker-1'" in invoke("list").stdout
    shown = invoke("show", "third").stdout
    assert "has not answered for 7 s" in shown
    assert "time.sleep(10**6)" in shown
    assert document("show", "third")["problem"]["type"] == "WorkerFrozen"
    assert "third is released" in invoke("release", "third").stderr
    told = document("show", "third")
    assert told["problem"]["type"] == "LeaseReleased"
    assert "'worker-1'" in told["problem"]["message"]
    refused = invoke("release", "third")
    assert refused.exit_code == 3
    assert "nothing to release" in refused.stderr
    with Client.local("pyworkflow.db", worker=False) as client:
        with pytest.raises(ServiceError, match="nothing to release"):
            client.release("third")
        with pytest.raises(ServiceError, match="nothing to release"):
            client.release(client.get("first"))


def test_a_callback_that_is_not_there_is_told(kept: Path) -> None:
    for words in (["succeed", "x.y", "--result", "1"], ["fail", "x"], ["heartbeat", ""]):
        result = invoke("callback", *words)
        assert result.exit_code == 3
        assert "callback" in result.stderr
    assert invoke("callback", "succeed", "x", "--result", "{").exit_code == 2


# -- sizes ---------------------------------------------------------------------------------------


def test_three_thousand_operations_are_shown(folder: Path) -> None:
    db = ["--db", "wide.db"]
    result = invoke(
        "run", "shop.py:wide", "--name", "w", "--skip-time", "--input", '{"count": 3000}', *db
    )
    assert result.exit_code == 0, result.stderr
    assert "and 2,960 more" in result.stderr
    assert len(document("show", "w", *db)["operations"]) == 3_000
    assert (
        sum("number succeeded" in line for line in invoke("show", "w", *db).stdout.split("\n"))
        == 3_000
    )
    assert len(document("history", "w", *db)["events"]) == 6_002


# -- without the extra ---------------------------------------------------------------------------


def test_without_the_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit) as caught:
        pyworkflow._cli.main()
    assert caught.value.code == 3
    assert capfd.readouterr().err == (
        "The command line needs typer: install PyWorkflow with its extra cli, in a checkout with "
        "pip install '.[cli]'.\n"
    )


def test_a_defect_keeps_its_traceback_and_is_no_failed_workflow(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise AttributeError("oops")

    monkeypatch.setattr("pyworkflow._cli.executions.list_executions", broken)
    monkeypatch.setattr(sys, "argv", ["pyworkflow", "list"])
    with pytest.raises(SystemExit) as caught:
        pyworkflow._cli.main()
    assert caught.value.code == 70
    assert "AttributeError: oops" in capfd.readouterr().err


def test_all_statuses_have_a_style() -> None:
    from pyworkflow._cli.wording import STYLES

    assert set(STYLES) == set(ExecutionStatus)


# -- copies, damage --------------------------------------------------------------------------------


def test_a_backup_is_made_and_never_replaces_a_file(folder: Path) -> None:
    with Client.local("a.db", worker=False) as client:
        client.start("order", {"order_id": "A"}, execution_name="one")
    made = document("backup", "b.db", "--db", "a.db")
    assert made == {"path": str(folder / "b.db"), "bytes": (folder / "b.db").stat().st_size}
    assert document("list", "--db", "b.db") == document("list", "--db", "a.db")
    again = invoke("backup", "b.db", "--db", "a.db")
    assert again.exit_code == 2
    assert "choose another name" in again.stderr
    other = invoke("backup", "c.db", "--db", "a.db")
    assert (other.exit_code, other.stderr) == (0, "")
    assert "c.db is a backup of a.db: " in other.stdout
    assert invoke("backup", "d.db", "--db", "none.db").exit_code == 3
    assert not (folder / "none.db").exists()


@pytest.mark.parametrize("column", ["tokens", "number", "deadline_ms"])
def test_a_damaged_execution_is_listed_and_shown_as_far_as_its_row_tells(
    folder: Path, column: str
) -> None:
    with Client.local("a.db", worker=False) as client:
        client.start("order", {"order_id": "A"}, execution_name="bad")
    vandal = sqlite3.connect("a.db")
    vandal.execute(f"UPDATE executions SET {column} = 9223372036854775807")
    vandal.commit()
    vandal.close()
    (listed,) = document("list", "--db", "a.db")["executions"]
    assert f"executions, {column}: expected " in listed["problem"]["message"]
    for wanted in ("bad", listed["id"]):
        shown = invoke("show", wanted, "--db", "a.db")
        assert shown.exit_code == 3
        assert f"executions, {column}: expected " in shown.stdout
        assert "can't be read" in shown.stderr
