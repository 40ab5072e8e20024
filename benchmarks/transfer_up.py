"""Uploads to SeaweedFS: one blob of 1 GiB, and 200 of 8 MiB, from a RAM disk, sha256 included.

Nothing is sent before its sha256 is known, for that is its name. Ours is what a push does, with
a registry of our own beside it: declare, send straight to the store by the URLs of the answer, in
parts of the registry's size if a blob is large. Publishing is not timed: it reads what came, as no
other client does. The others have what they need without asking: boto3's TransferManager the
key, a plain client of four workers presigned URLs, for a large blob of its parts of 16 MiB. Those
do not sign checksums, so the store takes whatever they send. The processors' time says whose work
it is: the store computes MD5 of all that comes several times, whoever sends it.

Every run is checked by reading the blobs back and hashing them. ``transfer_up.py large 2 4`` is
one of the cases, ``large`` or ``many``, in two runs of each client, with a fourth of its bytes.
"""

import hashlib
import http.client
import json
import mmap
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from report import write
from transfer import MEMORY, MIB, RUNS, WORKERS, Client, Plan, blob, child, compare, seaweedfs

PART = 16 * MIB
CASES = {"large": (1, 1024 * MIB), "many": (200, 8 * MIB)}
FILES = 50
"""Files of one version: a manifest has 64 at most."""


def main() -> None:
    """Measure every client on one case; print and write the table."""
    case, *numbers = sys.argv[1:]
    runs, share = [*map(int, numbers), *(RUNS, 1)[len(numbers) :]]
    count, size = CASES[case]
    count, size = max(1, count // share), size if count > 1 else size // share
    with tempfile.TemporaryDirectory(dir=MEMORY) as place, site(Path(place)) as plan:
        folder = Path(place) / "blobs"
        folder.mkdir()
        plan |= {"size": size, "folder": str(folder)}
        plan["digests"] = [blob(folder, size) for _ in range(count)]
        found = compare(plan, tuple(CLIENTS), count * size, runs)
    print(json.dumps(found, indent=1), flush=True)
    results = {f"{count} x {size // MIB} MiB": found, "runs": runs}
    print(write(f"transfer_up_{case}", results, ("rankloom", "boto3")))


@contextmanager
def site(place: Path) -> Iterator[Plan]:
    """Start an S3 server, and a registry that keeps its blobs there."""
    with seaweedfs() as plan:
        from servers import running_server  # the path to it is there now

        s3 = plan["s3"]
        settings = {
            "store": f"s3://{plan['bucket']}",
            "s3_endpoint": s3["endpoint_url"],
            "s3_access_key": s3["aws_access_key_id"],
            "s3_secret_key": s3["aws_secret_access_key"],
        }
        with running_server(place / "registry", **settings) as (url, token):
            yield {**plan, "registry": url, "token": token}


# --- after each run ----------------------------------------------------------------------------


def check(plan: Plan) -> None:
    """Read every blob back and hash it, then empty the bucket for the next run."""
    import boto3

    client, bucket = boto3.client("s3", **plan["s3"]), plan["bucket"]
    found: set[str] = set()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", []):
            sha = hashlib.sha256()
            for chunk in client.get_object(Bucket=bucket, Key=item["Key"])["Body"].iter_chunks(MIB):
                sha.update(chunk)
            if sha.hexdigest() == item["Key"].rpartition("/")[2]:
                found.add(sha.hexdigest())
            client.delete_object(Bucket=bucket, Key=item["Key"])
    assert found >= set(plan["digests"]), "a blob did not arrive"  # noqa: S101
    for item in client.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
        client.abort_multipart_upload(Bucket=bucket, Key=item["Key"], UploadId=item["UploadId"])


# --- clients -----------------------------------------------------------------------------------


def rankloom(plan: Plan) -> Callable[[], None]:
    """Ours, as a push does it, up to the moment when all is in the store."""
    from rankloom.manifest import Manifest
    from rankloom.ref import AdapterName
    from rankloom.registry.http import HttpRegistry
    from rankloom.registry.pack import entries
    from rankloom.registry.push import send
    from rankloom.registry.wire import UploadRequest

    registry = HttpRegistry(plan["registry"], plan["token"])
    folder, name = Path(plan["folder"]), AdapterName("default", "uploads")

    def push(names: list[str]) -> None:
        manifest = Manifest(files=entries(folder, [folder / digest for digest in names]))
        send(registry, folder, name, UploadRequest(manifest=manifest))

    def work() -> None:
        for at in range(0, len(plan["digests"]), FILES):
            push(plan["digests"][at : at + FILES])

    return work


def boto(plan: Plan) -> Callable[[], None]:
    """boto3's TransferManager with four workers of its own, after a hash of the file."""
    import boto3
    from boto3.s3.transfer import TransferConfig

    client = boto3.client("s3", **plan["s3"])
    config = TransferConfig(max_concurrency=WORKERS, multipart_chunksize=PART)

    def one(name: str) -> None:
        path = Path(plan["folder"]) / name
        assert hashed(path) == name  # noqa: S101
        client.upload_file(str(path), plan["bucket"], name, Config=config)

    return partial(together, [partial(one, name) for name in plan["digests"]])


Put = Callable[[str, memoryview], str]
"""Sends bytes to a URL and returns their ETag."""


def plain(plan: Plan, put: Put) -> Callable[[], None]:
    """Four workers that hash and send whole files, or the parts of one after a hash of all."""
    import boto3

    client, bucket, size = boto3.client("s3", **plan["s3"]), plan["bucket"], plan["size"]

    def presigned(method: str, **more: str | int) -> str:
        return client.generate_presigned_url(method, Params={"Bucket": bucket, **more})

    def whole(url: str, name: str) -> None:
        with mapped(Path(plan["folder"]) / name) as data:
            assert hashlib.sha256(data).hexdigest() == name  # noqa: S101
            put(url, data)

    if size <= 4 * PART:
        named = [(presigned("put_object", Key=name), name) for name in plan["digests"]]
        return partial(together, [partial(whole, *pair) for pair in named])
    (name,) = plan["digests"]
    upload = client.create_multipart_upload(Bucket=bucket, Key=name)["UploadId"]
    given = {"Bucket": bucket, "Key": name, "UploadId": upload}
    urls = [
        presigned("upload_part", Key=name, UploadId=upload, PartNumber=number + 1)
        for number in range(-(-size // PART))
    ]

    def work() -> None:
        with mapped(Path(plan["folder"]) / name) as data:
            assert hashlib.sha256(data).hexdigest() == name  # noqa: S101
            tags: dict[int, str] = {}

            def part(index: int) -> None:
                tags[index + 1] = put(urls[index], data[index * PART : (index + 1) * PART])

            together([partial(part, index) for index in range(len(urls))])
        sent = [{"PartNumber": number, "ETag": tags[number]} for number in sorted(tags)]
        client.complete_multipart_upload(**given, MultipartUpload={"Parts": sent})

    return work


def http_client(plan: Plan) -> Callable[[], None]:
    """The standard library, from the page cache to the socket."""
    kept = threading.local()

    def put(url: str, data: memoryview) -> str:
        place = urlsplit(url)
        if not hasattr(kept, "connection"):
            kept.connection = http.client.HTTPConnection(place.netloc)
        kept.connection.request("PUT", f"{place.path}?{place.query}", body=data)
        answer = kept.connection.getresponse()
        answer.read()
        assert answer.status == 200  # noqa: S101
        return str(answer.headers["ETag"])

    return plain(plan, put)


def together(jobs: list[Callable[[], None]]) -> None:
    """Do jobs with four workers."""
    with ThreadPoolExecutor(WORKERS) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()


@contextmanager
def mapped(path: Path) -> Iterator[memoryview]:
    """Give a file's bytes without reading them."""
    with (
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
        memoryview(data) as view,
    ):
        yield view


def hashed(path: Path) -> str:
    """Return the hex of a file's sha256."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


CLIENTS: dict[str, Client] = {
    "rankloom": rankloom,
    "http.client": http_client,
    "boto3": boto,
}

if __name__ == "__main__":
    child(CLIENTS, check) if "--child" in sys.argv else main()
