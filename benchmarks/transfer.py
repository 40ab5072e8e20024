"""Moving blobs: one of 1 GiB, and 200 of 8 MiB, down from nginx on a RAM disk, sha256 included.

Every client runs in a process of its own, by the same URLs, and must end with the right bytes
under their digests. A plain client is what one would write with the library at hand: four workers
that hash what they read. boto3's TransferManager needs a server that speaks S3 and is measured
against SeaweedFS together with ours.

``transfer.py NGINX`` with the path of the program measures against nginx, and without against
SeaweedFS.
"""

import hashlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from report import write

MIB = 1 << 20
CASES = {"1 x 1 GiB": (1, 1024 * MIB), "200 x 8 MiB": (200, 8 * MIB)}
CLIENTS = ("rankloom", "http.client", "urllib3", "boto3")
RUNS = 3
WORKERS = 4


def main() -> None:
    """Measure every client on every case; print and write the table."""
    server = nginx if sys.argv[1:] else seaweedfs
    results: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        for case, (count, size) in CASES.items():
            with server(Path(name), count, size) as plan:
                clients = CLIENTS if "s3" in plan else CLIENTS[:-1]
                results[case] = compare(plan, clients, count * size)
                print(server.__name__, case, json.dumps(results[case]), flush=True)
    packages = ("rankloom", "urllib3", "boto3")
    print(write(f"transfer_{server.__name__}", results, packages))


def compare(
    plan: dict[str, object], clients: tuple[str, ...], nbytes: int
) -> dict[str, dict[str, float]]:
    """Return MiB/s and MiB of memory of each client, medians of runs that took turns."""
    seen: dict[str, list[tuple[float, float]]] = {client: [] for client in clients}
    for _ in range(RUNS):
        for client in clients:
            seen[client].append(run(plan, client))
    return {
        client: {
            "mib_per_s": round(nbytes / MIB / statistics.median(run[0] for run in runs), 1),
            "rss_mib_over_interpreter": round(max(run[1] for run in runs), 1),
        }
        for client, runs in seen.items()
    }


def run(plan: dict[str, object], client: str) -> tuple[float, float]:
    """Run a client in a process of its own; return seconds and MiB beyond a bare interpreter."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as target:
        given = json.dumps({**plan, "client": client, "target": target})
        command = [sys.executable, __file__, "--child"]
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    return said["seconds"], said["rss"]


# --- servers -----------------------------------------------------------------------------------


@contextmanager
def nginx(place: Path, count: int, size: int) -> Iterator[dict[str, object]]:
    """Serve random blobs as static files."""
    root, port = place / "root", free_port()
    root.mkdir()
    digests = [blob(root, size) for _ in range(count)]
    (place / "nginx.conf").write_text(
        f"user root; worker_processes 1; daemon off; pid {place}/pid; error_log {place}/error.log;"
        "events {} http { sendfile on; tcp_nopush on; access_log off; keepalive_requests 100000;"
        f"client_body_temp_path {place}/t; proxy_temp_path {place}/t; fastcgi_temp_path {place}/t;"
        f"uwsgi_temp_path {place}/t; scgi_temp_path {place}/t;"
        f"server {{ listen 127.0.0.1:{port}; root {root}; }} }}"
    )
    with subprocess.Popen(
        [sys.argv[1], "-e", f"{place}/e", "-c", f"{place}/nginx.conf"]
    ) as running:
        time.sleep(1)
        urls = [f"http://127.0.0.1:{port}/{digest}" for digest in digests]
        try:
            yield {"urls": urls, "digests": digests, "size": size}
        finally:
            running.terminate()
            running.wait()
            shutil.rmtree(root)


@contextmanager
def seaweedfs(place: Path, count: int, size: int) -> Iterator[dict[str, object]]:
    """Keep random blobs in an S3 server; its URLs are presigned."""
    import boto3

    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from servers import ACCESS_KEY, BUCKET, SECRET_KEY, running_seaweedfs

    root = place / "root"
    root.mkdir()
    with running_seaweedfs() as server:
        s3 = {
            "endpoint_url": server.endpoint,
            "aws_access_key_id": ACCESS_KEY,
            "aws_secret_access_key": SECRET_KEY,
            "region_name": "us-east-1",
        }
        client = boto3.client("s3", **s3)
        digests = [blob(root, size) for _ in range(count)]
        for digest in digests:
            client.upload_file(str(root / digest), BUCKET, digest)
        shutil.rmtree(root)
        urls = [
            client.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": digest})
            for digest in digests
        ]
        yield {"urls": urls, "digests": digests, "size": size, "s3": s3, "bucket": BUCKET}


def blob(root: Path, size: int) -> str:
    """Write random bytes under their digest."""
    sha = hashlib.sha256()
    with (root / "new").open("wb") as stream:
        for _ in range(size // MIB):
            data = os.urandom(MIB)
            sha.update(data)
            stream.write(data)
    (root / "new").rename(root / sha.hexdigest())
    return sha.hexdigest()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


# --- clients -----------------------------------------------------------------------------------


def child() -> None:
    """Fetch all blobs with one client; print seconds and memory."""
    plan = json.load(sys.stdin)
    bare = peak_mib()
    fetch = globals()[plan["client"].replace(".", "_").replace("boto3", "boto")](plan)
    target, size = Path(plan["target"]), plan["size"]
    began = time.perf_counter()
    fetch(target)
    seconds = time.perf_counter() - began
    rss = peak_mib() - bare
    for digest in plan["digests"]:
        with (target / digest).open("rb") as stream:
            assert hashlib.file_digest(stream, "sha256").hexdigest() == digest  # noqa: S101
        assert (target / digest).stat().st_size == size  # noqa: S101
    print(json.dumps({"seconds": seconds, "rss": rss}))


def peak_mib() -> float:
    """Return this process's largest resident set in MiB (getrusage's is its parent's at first)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def rankloom(plan: dict[str, object]) -> Callable[[Path], None]:
    """Ours, as a pull calls it."""
    from functools import partial

    from rankloom.registry import crew, transfer

    def fetch(target: Path) -> None:
        jobs = [
            partial(transfer.get, url, target / name, digest=f"sha256:{name}", size=plan["size"])
            for url, name in zip(plan["urls"], plan["digests"], strict=True)
        ]
        crew.run(jobs)

    return fetch


def plain(
    plan: dict[str, object], stream: Callable[[str], Iterator[bytes]]
) -> Callable[[Path], None]:
    """Four workers, each of which writes and hashes the answers that it streams."""

    def one(target: Path, url: str, name: str) -> None:
        sha = hashlib.sha256()
        with (target / name).open("wb") as out:
            for chunk in stream(url):
                sha.update(chunk)
                out.write(chunk)
        assert sha.hexdigest() == name  # noqa: S101

    def fetch(target: Path) -> None:
        with ThreadPoolExecutor(WORKERS) as pool:
            pairs = zip(plan["urls"], plan["digests"], strict=True)
            for done in [pool.submit(one, target, url, name) for url, name in pairs]:
                done.result()

    return fetch


def http_client(plan: dict[str, object]) -> Callable[[Path], None]:
    """The standard library, into one buffer a thread."""
    import http.client
    from urllib.parse import urlsplit

    kept = threading.local()

    def stream(url: str) -> Iterator[bytes]:
        place = urlsplit(url)
        if not hasattr(kept, "connection"):
            kept.connection = http.client.HTTPConnection(place.netloc)
            kept.buffer = memoryview(bytearray(MIB))
        kept.connection.request("GET", f"{place.path}?{place.query}")
        answer = kept.connection.getresponse()
        while count := answer.readinto(kept.buffer):
            yield kept.buffer[:count]

    return plain(plan, stream)


def urllib3(plan: dict[str, object]) -> Callable[[Path], None]:
    """urllib3, streaming."""
    import urllib3 as library

    pool = library.PoolManager(maxsize=WORKERS)

    def stream(url: str) -> Iterator[bytes]:
        answer = pool.request("GET", url, preload_content=False)
        yield from answer.stream(MIB)
        answer.release_conn()

    return plain(plan, stream)


def boto(plan: dict[str, object]) -> Callable[[Path], None]:
    """boto3's TransferManager with four workers of its own, then a hash of the file."""
    import boto3
    from boto3.s3.transfer import TransferConfig

    client = boto3.client("s3", **plan["s3"])
    config = TransferConfig(max_concurrency=WORKERS, multipart_chunksize=16 * MIB)

    def one(target: Path, name: str) -> None:
        client.download_file(plan["bucket"], name, str(target / name), Config=config)
        with (target / name).open("rb") as stream:
            assert hashlib.file_digest(stream, "sha256").hexdigest() == name  # noqa: S101

    def fetch(target: Path) -> None:
        with ThreadPoolExecutor(WORKERS) as pool:
            for done in [pool.submit(one, target, name) for name in plan["digests"]]:
                done.result()

    return fetch


if __name__ == "__main__":
    child() if "--child" in sys.argv else main()
