"""A store that answers like S3, on this machine, for as long as a test lasts."""

from __future__ import annotations

import logging
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from moto.server import ThreadedMotoServer


@contextmanager
def running_store(bucket: str) -> Iterator[str]:
    """The URI of an empty bucket, whose name no other test has.

    The environment says where it is, to processes that are started meanwhile, too.
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    urllib.request.urlopen(urllib.request.Request(f"{address}/{bucket}", method="PUT")).close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(key, "test")
        for key in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            patch.setenv(key, "us-east-1")
        try:
            yield f"s3://{bucket}"
        finally:
            server.stop()
