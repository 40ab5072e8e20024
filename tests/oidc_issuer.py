"""An issuer of identity tokens on this machine: its own keys, discovery and key set over HTTP.

It also stands in for the endpoint where a job of GitHub asks for its token.
"""

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

AUDIENCE = "rankloom-tests"


class LocalIssuer:
    """Signs tokens for jobs in GitHub's form, and counts how often it is asked for its keys."""

    def __init__(self) -> None:
        self.keys: list[RSAKey | ECKey] = [RSAKey.generate_key(2048, auto_kid=True)]
        self.published: list[RSAKey | ECKey] = self.keys
        self.asked = 0
        self.slow = 0.0
        self.made_out_for: list[str] = []
        self.url = ""
        self.discovery: dict[str, Any] = {}

    def claims(self, **changed: object) -> dict[str, Any]:
        """Return the claims of a job of ``acme/adapters`` that runs now."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "repo:acme/adapters:ref:refs/heads/main",
            "jti": uuid.uuid4().hex,
            "iat": now,
            "nbf": now,
            "exp": now + 300,
            "repository": "acme/adapters",
            "repository_id": "4711",
            "job_workflow_ref": "acme/adapters/.github/workflows/publish.yml@refs/heads/main",
            "environment": "prod",
            "ref": "refs/heads/main",
            "sha": "a" * 40,
            "run_id": "1",
        }
        return {name: value for name, value in {**claims, **changed}.items() if value is not None}

    def token(self, **changed: object) -> str:
        """Return a signed token; ``None`` leaves a claim out."""
        key = self.keys[-1]
        alg = "ES256" if isinstance(key, ECKey) else "RS256"
        return jwt.encode({"alg": alg, "kid": key.kid}, self.claims(**changed), key)

    def job(self) -> dict[str, str]:
        """Return the environment that GitHub gives a job that may ask for its identity."""
        url = f"{self.url}/job?api-version=2.0"
        return {
            "ACTIONS_ID_TOKEN_REQUEST_URL": url,
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "the-jobs-secret",
        }

    def answer(self, target: str, authorization: str | None) -> dict[str, Any] | None:
        """Return what is served under a path."""
        path, _, query = target.partition("?")
        if path == "/job" and authorization == "bearer the-jobs-secret":
            (audience,) = parse_qs(query)["audience"]
            self.made_out_for.append(audience)
            return {"value": self.token(aud=audience)}
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.discovery}
        if path == "/keys":
            self.asked += 1
            time.sleep(self.slow)
            listed: Any = KeySet(list(self.published)).as_dict(private=False)
            return dict(listed)
        return None


@contextlib.contextmanager
def running_issuer() -> Iterator[LocalIssuer]:
    """Serve a fresh issuer from a thread of this process."""
    issuer = LocalIssuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = issuer.answer(self.path, self.headers["Authorization"])
            body = json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        issuer.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join()
