"""A small Kaggle for the real client: answers what a publish asks, keeps every request, fails where a test says so.

The client is pointed at it as its proxy, so that a request for any other address arrives here too and is seen.
"""

import hashlib
import io
import json
import threading
import zipfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote, urlsplit

from package.fake_bundle import result_line
from PIL import Image


def mask_bytes(pages: int = 2, value: int = 1, mode: str = "L") -> bytes:
    """A mask of pages of 4 x 3 as Pillow writes it."""
    stream = io.BytesIO()
    first, *others = [Image.new(mode, (4, 3), value) for _ in range(pages)]
    first.save(stream, format="TIFF", save_all=True, append_images=others)
    return stream.getvalue()


def zip_bytes(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


def log_of(*lines: str) -> str:
    """A log as Kaggle writes it: pieces of what was printed, with their streams; a line may be cut in two."""
    printed = "".join(f"{line}\n" for line in lines)
    halves = printed[: len(printed) // 2], printed[len(printed) // 2 :]
    pieces = [("stdout", "[stdout]\n"), ("stdout", halves[0]), ("stderr", "a warning\n"), ("stdout", halves[1])]
    return json.dumps([{"stream_name": stream, "time": 1.5, "data": data} for stream, data in pieces])


SUBMISSION = zip_bytes({"1407735.tif": mask_bytes()})


@dataclass
class Request:
    method: str
    host: str
    call: str  # the API's method, "upload" or "output"
    name: str  # the upload's token, the output's file
    body: bytes
    part: str = ""  # which bytes of the whole: "10-19/20", "*/20" for the question how many came; empty for all

    @property
    def json(self) -> dict:
        return json.loads(self.body)


@dataclass
class Kaggle:
    """What Kaggle holds, and how it is to fail; `faults` are answers by call, each used once, in order."""

    port: int = 0
    requests: list[Request] = field(default_factory=list)
    version: int = 0  # the dataset's current one; 0: there is none
    files: dict[str, str] = field(default_factory=dict)  # name -> sha256 of what the newest dataset version holds
    pending: deque[str] = field(default_factory=deque)  # statuses told before "ready" after an upload
    arriving: bool = False  # a version was sent and is not current yet
    absent_code: int = 404
    blobs: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    kernels: int = 0
    kernel_states: deque[dict] = field(default_factory=deque)
    output: dict[str, bytes] = field(
        default_factory=lambda: {"submission.zip": zip_bytes({"1407735.tif": mask_bytes()})}
    )
    log: str | None = None  # what the run printed, in Kaggle's form; None: what submit.py prints over these files
    cut: int | None = None  # the next upload breaks off after so many bytes
    allowed: int = 5  # submissions left today
    board: list[dict] = field(default_factory=list)  # submissions, the newest first
    results: deque[dict] = field(default_factory=deque)  # how the newest one stands when asked; then it is scored
    faults: dict[str, deque[tuple[int, dict]]] = field(default_factory=dict)

    def fail(self, call: str, http_code: int, /, **answer: object) -> None:
        self.faults.setdefault(call, deque()).append((http_code, answer))

    def calls(self) -> list[str]:
        return [request.call for request in self.requests]

    def bodies(self, call: str) -> list[dict]:
        return [request.json for request in self.requests if request.call == call]

    def answer(self, request: Request) -> tuple[int, dict | bytes]:
        if queue := self.faults.get(request.call):
            return queue.popleft()
        if request.call == "upload":
            return self.take(request), {}
        if request.call == "output":
            return 200, self.output[unquote(request.name)]
        handler = getattr(self, "do_" + request.call, None)
        return handler(request.json) if handler else (404, {"code": 404, "message": f"no such call: {request.call}"})

    def take(self, request: Request) -> int:
        """Keep what came of a blob; 503: it broke off, 308: some is missing."""
        name, kept = self.blobs[request.name]
        kept = kept + request.body if request.part else request.body
        if cut := self.cut:
            kept, self.cut = kept[:cut], None
        self.blobs[request.name] = (name, kept)
        if request.part.startswith("*/"):
            return 308 if len(kept) < int(request.part[2:]) else 200
        return 503 if cut else 200

    def do_GetDatasetStatus(self, body: dict) -> tuple[int, dict]:
        if self.arriving and self.pending:
            return 200, {"status": self.pending.popleft()}
        if self.arriving:
            self.version, self.arriving = self.version + 1, False
        if not self.version:
            return self.absent_code, {"code": self.absent_code, "message": "Permission 'datasets.get' was denied"}
        return 200, {"status": "READY"}

    def do_GetDataset(self, body: dict) -> tuple[int, dict]:
        return 200, {"ref": f"{body['ownerSlug']}/{body['datasetSlug']}", "currentVersionNumber": self.version}

    def do_StartBlobUpload(self, body: dict) -> tuple[int, dict]:
        token = f"token{len(self.blobs)}"
        self.blobs[token] = (body["name"], b"")
        return 200, {"token": token, "createUrl": f"http://127.0.0.1:{self.port}/upload/{token}?signature=secret"}

    def do_CreateDataset(self, body: dict) -> tuple[int, dict]:
        sent = [self.blobs[file["token"]] for file in body["files"]]
        self.files = {name: hashlib.sha256(content).hexdigest() for name, content in sent}
        self.arriving = True
        return 200, {"ref": "r", "url": "https://www.kaggle.com/datasets/r", "status": "ok", "error": ""}

    def do_CreateDatasetVersion(self, body: dict) -> tuple[int, dict]:
        return self.do_CreateDataset(body["body"])

    def do_SaveKernel(self, body: dict) -> tuple[int, dict]:
        self.kernels += 1
        return 200, {"ref": "k", "url": "https://www.kaggle.com/code/k", "versionNumber": self.kernels, "error": ""}

    def do_GetKernelSessionStatus(self, body: dict) -> tuple[int, dict]:
        return 200, self.kernel_states.popleft() if self.kernel_states else {"status": "COMPLETE"}

    def do_ListKernelSessionOutput(self, body: dict) -> tuple[int, dict]:
        files = [
            {"url": f"http://127.0.0.1:{self.port}/output/{quote(name, safe='')}", "fileName": name}
            for name in self.output
        ]
        return 200, {"files": files, "log": self.printed() if self.log is None else self.log}

    def printed(self, verdict: str = "complete") -> str:
        """The log of a run over the newest dataset version that left the output."""
        files = {name: hashlib.sha256(content).hexdigest() for name, content in self.output.items()}
        files = {name: digest for name, digest in files.items() if name == "submission.zip"}
        return log_of(result_line("submit", verdict, manifest_sha256=self.files["manifest.json"], files=files))

    def do_GetSubmissionLimits(self, body: dict) -> tuple[int, dict]:
        made = len(self.board)
        return 200, {"numAllowedNow": self.allowed, "numToday": made, "numTotal": made}

    def do_CreateCodeSubmission(self, body: dict) -> tuple[int, dict]:
        self.allowed -= 1
        self.board.insert(0, {"ref": len(self.board) + 1, "description": body["submissionDescription"]})
        return 200, {"message": "Successfully submitted to Vesuvius Challenge - Surface Detection", "ref": 1}

    def do_ListSubmissions(self, body: dict) -> tuple[int, dict]:
        scored = {"status": "COMPLETE", "publicScore": "0.561", "privateScore": "0.553"}
        for submission in self.board[:1]:
            submission.update(self.results.popleft() if self.results else scored)
        return 200, {"submissions": self.board}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # header and body in one packet: two would wait for each other 40 ms
    kaggle: Kaggle

    def log_message(self, *arguments: object) -> None:
        """Keep standard error quiet."""

    def read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def respond(self) -> None:
        address = urlsplit(self.path)
        call, name = address.path.split("/")[-2:] if self.command != "CONNECT" else ("", "")
        if call not in ("upload", "output"):
            call = name
        part = self.headers.get("Content-Range", "").removeprefix("bytes ")
        request = Request(self.command, address.netloc or self.path, call, name, self.read_body(), part)
        self.kaggle.requests.append(request)
        ours = request.host in ("localhost", f"127.0.0.1:{self.kaggle.port}")
        code, answer = self.kaggle.answer(request) if ours else (403, b"no way out")
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json" if isinstance(answer, dict) else "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        if code == 308 and (kept := len(self.kaggle.blobs[name][1])):
            self.send_header("Range", f"bytes=0-{kept - 1}")
        if code == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PUT = do_GET = do_CONNECT = respond


@contextmanager
def serve(kaggle: Kaggle) -> Iterator[dict[str, str]]:
    """Answer for `kaggle` on a free port; yields the environment that leads the client here and nowhere else."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"kaggle": kaggle}))
    kaggle.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    proxy = f"http://127.0.0.1:{kaggle.port}"
    try:
        yield {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "http_proxy": proxy, "https_proxy": proxy}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
