"""A world around a Lambda function: all that AWS is for it, on this machine.

A `Bridge` is three servers at one address. For AWS's emulator it is the Lambda endpoint whose
Invoke runs a function. For the function's process, which is AWS's own runtime client, it is the
Runtime API, from which invocations are fetched and to which answers are posted. And it passes the
durable APIs on to the emulator, and counts the calls.

A process that dies in the midst of an invocation makes that invocation an error, and the next one
gets a new process, as on Lambda.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
import uuid
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DEADLINE_MS = 4_102_444_800_000  # the year 2100
PATIENCE_SECONDS = 60
RUNTIME_API = "/2018-06-01/runtime/"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-west-2",
    "AWS_DEFAULT_REGION": "us-west-2",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def load_example(name: str) -> Any:
    """Return a fresh module of ``examples/aws``."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"examples/aws/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build_package() -> Path:
    """Install PyWorkflow as a user does, once for each state of the source; return the folder.

    What it needs is copied from this environment, so that the network is not asked.
    """
    needed = _distributions("pyworkflow", {"aws"})
    sources = [ROOT / "pyproject.toml", *sorted((ROOT / "src").rglob("*.py"))]
    digest = hashlib.sha256(sys.version.encode())
    for each in needed:
        digest.update(f"{each.name}=={each.version}".encode())
    for source in sources:
        digest.update(source.read_bytes())
    here = hashlib.sha256(f"{ROOT} {sys.version_info[:2]}".encode()).hexdigest()[:8]
    kind = f"pyworkflow-package-{here}-"
    temporary = Path(tempfile.gettempdir())
    folder = temporary / f"{kind}{digest.hexdigest()[:16]}"
    if not folder.exists():
        for stale in temporary.glob(f"{kind}*"):
            shutil.rmtree(stale, ignore_errors=True)
        building = Path(tempfile.mkdtemp(prefix="pyworkflow-building-"))
        command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        options = ["--no-index", "--no-deps", "--no-build-isolation", "-t", str(building)]
        subprocess.run([*command, *options, "."], cwd=ROOT, check=True)
        for each in needed:
            _copy(each, building)
        with contextlib.suppress(OSError):  # another session was faster
            building.rename(folder)
    return folder


def _distributions(name: str, extras: set[str]) -> list[metadata.Distribution]:
    """Return what ``name`` with its ``extras`` requires here, without itself, by name."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [(name, extras)]
    while waiting:
        each, its_extras = waiting.pop()
        for line in metadata.requires(each) or ():
            requirement = Requirement(line)
            if requirement.name in found or not any(
                requirement.marker is None or requirement.marker.evaluate({"extra": extra})
                for extra in ("", *its_extras)
            ):
                continue
            found[requirement.name] = metadata.distribution(requirement.name)
            waiting.append((requirement.name, requirement.extras))
    return [found[key] for key in sorted(found)]


def _copy(distribution: metadata.Distribution, folder: Path) -> None:
    for file in distribution.files or ():
        if ".." in file.parts or file.suffix == ".pyc":  # scripts are no part of a package
            continue
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(distribution.locate_file(file)), target)


def deploy(package: Path, modules: list[Path], folder: Path) -> Path:
    """Zip the package with modules of a user's, and unzip it elsewhere, as Lambda does."""
    archive = folder / "deployment.zip"
    with zipfile.ZipFile(archive, "w") as deployment:
        for path in sorted(package.rglob("*")):
            deployment.write(path, path.relative_to(package))
        for module in modules:
            deployment.write(module, module.name)
    task = folder / "task"
    with zipfile.ZipFile(archive) as deployment:
        deployment.extractall(task)
    return task


class Invocation:
    """One call of the function, and what became of it."""

    def __init__(self, payload: bytes, function: str) -> None:
        self.id = str(uuid.uuid4())
        self.payload = payload
        self.function = function
        self.answer: bytes | None = None
        self.is_error = False
        self.process = 0
        self.done = threading.Event()

    def end(self, answer: bytes, *, is_error: bool) -> None:
        if not self.done.is_set():
            self.answer, self.is_error = answer, is_error
            self.done.set()

    @property
    def status(self) -> str:
        """What the function answered: the status, or the type of the error."""
        assert self.answer is not None
        answer = json.loads(self.answer)
        status: str = answer["errorType"] if self.is_error else answer["Status"]
        return status


class Call(NamedTuple):
    """A call of the durable APIs."""

    name: str
    updates: list[str]


class Bridge:
    """Lambda, seen from the emulator and from the function's process."""

    def __init__(self, task: Path, handler: str, environ: dict[str, str]) -> None:
        self.invocations: list[Invocation] = []
        self.calls: list[Call] = []
        self.reached: queue.Queue[str] = queue.Queue()
        self.passes = threading.Event()
        self.logs = ""
        self.emulator = ""
        self._task = task
        self._handler = handler
        self._waiting: queue.Queue[Invocation] = queue.Queue()
        self._process: subprocess.Popen[str] | None = None
        self._is_closed = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Requests)
        self._server.daemon_threads = True
        self._server.bridge = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.address}"
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(task),
            **CREDENTIALS,
            "AWS_LAMBDA_RUNTIME_API": self.address,
            "AWS_LAMBDA_FUNCTION_NAME": "order",
            "AWS_ENDPOINT_URL_LAMBDA": self.url,
            "BRIDGE": self.url,
            "PYTHONDONTWRITEBYTECODE": "1",
            **environ,
        }

    # -- for the emulator ------------------------------------------------------------------------

    def invoke(self, payload: bytes, function: str = "order") -> Invocation:
        """Run the function once."""
        invocation = Invocation(payload, function)
        self.take(invocation)
        return invocation

    def take(self, invocation: Invocation) -> None:
        """Have an invocation answered by the process that is there or by a new one."""
        self.invocations.append(invocation)
        self._waiting.put(invocation)
        if self._process is None or self._process.poll() is not None:
            self._start_process()
        if not invocation.done.wait(PATIENCE_SECONDS):
            invocation.end(b'{"errorType": "Patience", "errorMessage": ""}', is_error=True)

    # -- the function's process ------------------------------------------------------------------

    def _start_process(self) -> None:
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", self._handler],
            cwd=self._task,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._watch, args=(process,), daemon=True).start()

    def _watch(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.logs += line
        process.wait()
        if not self._is_closed:
            error = {"errorType": "Runtime.ExitError", "errorMessage": "the process ended"}
            for invocation in self.invocations:
                invocation.end(json.dumps(error).encode(), is_error=True)

    def kill(self) -> None:
        """Let the process die on the spot."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def next(self) -> Invocation | None:
        """Return the next invocation, `None` when there will be none."""
        process = self._process
        while not self._is_closed and process is self._process:
            with contextlib.suppress(queue.Empty):
                invocation = self._waiting.get(timeout=0.1)
                if not invocation.done.is_set():
                    invocation.process = process.pid if process else 0
                    return invocation
        return None

    def finish(self, request_id: str, body: bytes, *, is_error: bool) -> None:
        for invocation in self.invocations:
            if invocation.id == request_id:
                invocation.end(body, is_error=is_error)

    # -- for tests -------------------------------------------------------------------------------

    @property
    def statuses(self) -> list[str]:
        return [invocation.status for invocation in self.invocations]

    @property
    def checkpoints(self) -> list[list[str]]:
        return [call.updates for call in self.calls if call.name == "checkpoint"]

    def run(self, payload: Any, name: str = "run-1") -> dict[str, Any]:
        """Start an execution, and return what it is in the end."""
        arn = self.start(payload, name)
        return self.wait(arn)

    def start(self, payload: Any, name: str = "run-1", **otherwise: str) -> str:
        start = {
            "AccountId": "123456789012",
            "FunctionName": "order",
            "FunctionQualifier": "1",
            "ExecutionName": name,
            "ExecutionTimeoutSeconds": 10**9,
            "ExecutionRetentionPeriodDays": 1,
            "Input": json.dumps(payload),
            **otherwise,
        }
        return str(self.ask("POST", "/start-durable-execution", start)["ExecutionArn"])

    def wait(self, arn: str) -> dict[str, Any]:
        path = f"/2025-12-01/durable-executions/{urllib.parse.quote(arn, safe='')}"
        while True:
            found: dict[str, Any] = self.ask("GET", path)
            if found["Status"] != "RUNNING":
                return found
            if self.invocations:
                self.invocations[-1].done.wait(PATIENCE_SECONDS)

    def history(self, arn: str) -> list[str]:
        events = self.events(arn)
        return [" ".join(filter(None, (one["EventType"], one.get("Name")))) for one in events]

    def events(self, arn: str) -> list[dict[str, Any]]:
        """Return the whole history of an execution, with its payloads."""
        path = f"/2025-12-01/durable-executions/{urllib.parse.quote(arn, safe='')}/history"
        found = self.ask("GET", f"{path}?IncludeExecutionData=true&MaxItems=1000")
        assert "NextMarker" not in found
        events: list[dict[str, Any]] = found["Events"]
        return events

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(
            self.emulator + path, data=data, method=method, headers=headers
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as response:
            return json.load(response)

    def close(self) -> None:
        self._is_closed = True
        self.passes.set()
        if self._process is not None:
            self.kill()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes

    @property
    def bridge(self) -> Bridge:
        bridge: Bridge = self.server.bridge  # type: ignore[attr-defined]
        return bridge

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urllib.parse.urlsplit(self.path).path
        if path.endswith("/invocations"):
            self._invoke(body, urllib.parse.unquote(path.split("/")[-2]))
        elif path.startswith(RUNTIME_API):
            self._runtime_api(path.removeprefix(RUNTIME_API), body)
        elif path.startswith("/reached/"):
            self._reach(path)
        else:
            self._pass_on(path, body)

    def _invoke(self, body: bytes, function: str) -> None:
        invocation = self.bridge.invoke(body, function)
        headers = {"X-Amz-Function-Error": "Unhandled"} if invocation.is_error else {}
        self._send(200, invocation.answer or b"", {"x-amzn-RequestId": invocation.id, **headers})

    def _runtime_api(self, path: str, body: bytes) -> None:
        match path.split("/"):
            case ["invocation", "next"]:
                invocation = self.bridge.next()
                if invocation is None:
                    self.close_connection = True
                    return
                function = f"arn:aws:lambda:us-west-2:123456789012:function:{invocation.function}"
                headers = {
                    "Lambda-Runtime-Aws-Request-Id": invocation.id,
                    "Lambda-Runtime-Deadline-Ms": str(DEADLINE_MS),
                    "Lambda-Runtime-Invoked-Function-Arn": function,
                }
                self._send(200, invocation.payload, headers)
            case ["invocation", id, kind]:
                self.bridge.finish(id, body, is_error=kind == "error")
                self._send(202, b"{}", {})
            case _:
                for one in self.bridge.invocations:
                    one.end(body, is_error=True)
                self._send(202, b"{}", {})

    def _reach(self, path: str) -> None:
        self.bridge.reached.put(path.removeprefix("/reached/"))
        self.bridge.passes.wait(PATIENCE_SECONDS)
        self._send(200, b"{}", {})

    def _pass_on(self, path: str, body: bytes) -> None:
        name = path.rpartition("/")[2]
        updates = json.loads(body).get("Updates", []) if name == "checkpoint" else []
        self.bridge.calls.append(
            Call(name, [f"{one['Action']} {one.get('Name', one['Type'])}" for one in updates])
        )
        request = urllib.request.Request(
            self.bridge.emulator + self.path, data=body or None, method=self.command
        )
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as response:
                self._send(response.status, response.read(), {})
        except urllib.error.HTTPError as error:
            with error:
                self._send(error.code, error.read(), dict(error.headers))

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):  # whoever asked may be dead
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@contextlib.contextmanager
def lambda_function(task: Path, handler: str, **environ: str) -> Iterator[Bridge]:
    """Run a function that is unpacked in ``task``, and the emulator for it."""
    bridge = Bridge(task, handler, environ)
    with emulated(bridge):
        yield bridge


@contextlib.contextmanager
def emulated(bridge: Bridge, *plain: str) -> Iterator[None]:
    """Run the emulator for a bridge; ``plain`` names functions to invoke that aren't durable."""
    emulator = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("emulator.py")), bridge.url, *plain],
        env={**os.environ, **CREDENTIALS},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert emulator.stdout is not None
        bridge.emulator = f"http://127.0.0.1:{int(emulator.stdout.readline())}"
        yield
    finally:
        emulator.kill()
        emulator.communicate()
        bridge.close()
