"""Downloads: one blob of 1 GiB, and 200 of 8 MiB, sha256 included, from and to a RAM disk.

Every client must end with the right bytes under their digests. A plain client is what one would
write with the library at hand: workers that hash what they read; for a large blob also one that
reads ranges beside each other and hashes the file at its end. boto3's TransferManager speaks S3;
of a static server it needs no more than HEAD and GET, unsigned.

``transfer_down.py NGINX`` with the path of the program measures against nginx, and without
against SeaweedFS, whose URLs are presigned.
"""

import hashlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from report import write
from transfer import CASES, MEMORY, MIB, WORKERS, Client, Plan, blob, child, compare, free_port
from transfer import seaweedfs as s3_server

SPAN = 16 * MIB


def main() -> None:
    """Measure every client on every case; print and write the table."""
    server = nginx if sys.argv[1:] else seaweedfs
    results: dict[str, dict[str, dict[str, float]]] = {}
    for case, (count, size) in CASES.items():
        with (
            tempfile.TemporaryDirectory(dir=MEMORY) as name,
            server(Path(name), count, size) as plan,
        ):
            clients = tuple(name for name in CLIENTS if count == 1 or name != RANGES)
            results[case] = compare(plan, clients, count * size)
            print(server.__name__, case, json.dumps(results[case], indent=1), flush=True)
    print(write(f"transfer_down_{server.__name__}", results, ("rankloom", "urllib3", "boto3")))


# --- servers -----------------------------------------------------------------------------------


@contextmanager
def nginx(place: Path, count: int, size: int) -> Iterator[Plan]:
    """Serve random blobs as static files."""
    port = free_port()
    root = place / "root" / "blobs"
    root.mkdir(parents=True)
    digests = [blob(root, size) for _ in range(count)]
    (place / "nginx.conf").write_text(
        f"user root; worker_processes 1; daemon off; pid {place}/pid; error_log {place}/error.log;"
        "events {} http { sendfile on; tcp_nopush on; access_log off; keepalive_requests 100000;"
        f"client_body_temp_path {place}/t; proxy_temp_path {place}/t; fastcgi_temp_path {place}/t;"
        f"uwsgi_temp_path {place}/t; scgi_temp_path {place}/t;"
        f"server {{ listen 127.0.0.1:{port}; root {place}/root; }} }}"
    )
    command = [sys.argv[1], "-e", f"{place}/e", "-c", f"{place}/nginx.conf"]
    with subprocess.Popen(command) as running:
        time.sleep(1)
        origin = f"http://127.0.0.1:{port}"
        urls = [f"{origin}/blobs/{digest}" for digest in digests]
        s3 = {"endpoint_url": origin, "region_name": "us-east-1"}
        try:
            yield {"urls": urls, "digests": digests, "size": size, "s3": s3, "bucket": "blobs"}
        finally:
            running.terminate()
            running.wait()


@contextmanager
def seaweedfs(place: Path, count: int, size: int) -> Iterator[Plan]:
    """Keep random blobs in an S3 server; its URLs are presigned."""
    import boto3

    with s3_server() as plan:
        client, bucket = boto3.client("s3", **plan["s3"]), plan["bucket"]
        digests = [blob(place, size) for _ in range(count)]
        for digest in digests:
            client.upload_file(str(place / digest), bucket, digest)
            (place / digest).unlink()
        urls = [
            client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": digest})
            for digest in digests
        ]
        yield {"urls": urls, "digests": digests, "size": size, **plan}


# --- clients -----------------------------------------------------------------------------------


def check(plan: Plan) -> None:
    """Compare every file with its digest."""
    for digest in plan["digests"]:
        with (Path(plan["target"]) / digest).open("rb") as stream:
            assert hashlib.file_digest(stream, "sha256").hexdigest() == digest  # noqa: S101
            assert stream.tell() == plan["size"]  # noqa: S101


def rankloom(plan: Plan) -> Callable[[], None]:
    """Ours, as a pull calls it."""
    from rankloom.registry import crew, transfer

    target, size = Path(plan["target"]), plan["size"]
    jobs = [
        partial(transfer.get, url, target / name, digest=f"sha256:{name}", size=size)
        for url, name in zip(plan["urls"], plan["digests"], strict=True)
    ]
    return partial(crew.run, jobs)


def plain(plan: Plan, stream: Callable[[str], Iterator[bytes]]) -> Callable[[], None]:
    """Four workers, each of which writes and hashes the answers that it streams."""

    def one(url: str, name: str) -> None:
        sha = hashlib.sha256()
        with (Path(plan["target"]) / name).open("wb") as out:
            for chunk in stream(url):
                sha.update(chunk)
                out.write(chunk)
        assert sha.hexdigest() == name  # noqa: S101

    jobs = [partial(one, *pair) for pair in zip(plan["urls"], plan["digests"], strict=True)]
    return partial(together, jobs)


def together(jobs: list[Callable[[], None]]) -> None:
    """Do jobs with four workers."""
    with ThreadPoolExecutor(WORKERS) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()


kept = threading.local()


def answer(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    """Ask with this thread's connection; its answer is read into this thread's buffer."""
    place = urlsplit(url)
    if not hasattr(kept, "connection"):
        kept.connection = http.client.HTTPConnection(place.netloc)
        kept.buffer = memoryview(bytearray(MIB))
    kept.connection.request("GET", f"{place.path}?{place.query}", headers=headers)
    return kept.connection.getresponse()


def http_client(plan: Plan) -> Callable[[], None]:
    """The standard library, into one buffer a thread."""

    def stream(url: str) -> Iterator[bytes]:
        got = answer(url, {})
        while count := got.readinto(kept.buffer):
            yield kept.buffer[:count]

    return plain(plan, stream)


def http_client_ranges(plan: Plan) -> Callable[[], None]:
    """The standard library, four ranges at a time, then a hash of the file."""
    (url,), (digest,), size = plan["urls"], plan["digests"], plan["size"]
    path = Path(plan["target"]) / digest

    def one(handle: int, begin: int) -> None:
        end = min(begin + SPAN, size)
        got = answer(url, {"Range": f"bytes={begin}-{end - 1}"})
        while count := got.readinto(kept.buffer):
            begin += os.pwrite(handle, kept.buffer[:count], begin)
        assert begin == end  # noqa: S101

    def fetch() -> None:
        with path.open("w+b") as out:
            together([partial(one, out.fileno(), begin) for begin in range(0, size, SPAN)])
            assert hashlib.file_digest(out, "sha256").hexdigest() == digest  # noqa: S101

    return fetch


def urllib3(plan: Plan) -> Callable[[], None]:
    """urllib3, streaming."""
    import urllib3 as library

    pool = library.PoolManager(maxsize=WORKERS)

    def stream(url: str) -> Iterator[bytes]:
        got = pool.request("GET", url, preload_content=False)
        yield from got.stream(MIB)
        got.release_conn()

    return plain(plan, stream)


def boto(plan: Plan) -> Callable[[], None]:
    """boto3's TransferManager with four workers of its own, then a hash of the file."""
    import boto3
    from boto3.s3.transfer import TransferConfig
    from botocore import UNSIGNED
    from botocore.config import Config

    signature = None if "aws_access_key_id" in plan["s3"] else UNSIGNED
    plainly = Config(signature_version=signature, s3={"addressing_style": "path"})
    client = boto3.client("s3", config=plainly, **plan["s3"])
    config = TransferConfig(max_concurrency=WORKERS, multipart_chunksize=SPAN)

    def one(name: str) -> None:
        path = Path(plan["target"]) / name
        client.download_file(plan["bucket"], name, str(path), Config=config)
        with path.open("rb") as stream:
            assert hashlib.file_digest(stream, "sha256").hexdigest() == name  # noqa: S101

    return partial(together, [partial(one, name) for name in plan["digests"]])


RANGES = "http.client, ranges"
CLIENTS: dict[str, Client] = {
    "rankloom": rankloom,
    "http.client": http_client,
    RANGES: http_client_ranges,
    "urllib3": urllib3,
    "boto3": boto,
}

if __name__ == "__main__":
    child(CLIENTS, check) if "--child" in sys.argv else main()
