"""HTTP requests to SQS over kept connections, signed by libcurl (AWS Signature Version 4).

Source: https://curl.se/libcurl/c/CURLOPT_AWS_SIGV4.html
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import pycurl
from botocore.exceptions import (
    BotoCoreError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)

from fetch_mask_assets.pipeline.queue.sqs.endpoint import Endpoint

# libcurl's speed is a mean over so many seconds: it falls to zero only after them.
_SPEED_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Response:
    """A response: its status, its headers as they came, and its body."""

    status: int
    headers: bytes
    body: bytes = field(repr=False)

    def header(self, name: str) -> str | None:
        """The value of a header by its name in lower case; None if there is none."""
        # The last: those of a proxy come first.
        _, found, rest = self.headers.lower().rpartition(f"\r\n{name}:".encode())
        value = self.headers[len(self.headers) - len(rest) :].partition(b"\r\n")[0]
        return value.strip().decode("latin-1") if found else None


class Transport:
    """Connections to one endpoint. Any number of threads can use them at once."""

    def __init__(self, endpoint: Endpoint, connect_seconds: int, read_seconds: int) -> None:
        """`read_seconds` is the longest time without a byte, to within two seconds."""
        self._endpoint = endpoint
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._idle: deque[pycurl.Curl] = deque()

    def post(self, headers: Sequence[str], body: bytes) -> Response:
        """Posts a body; every header is signed.

        libcurl sends a request once more if a kept connection closes before it is answered.

        Raises:
            BotoCoreError: credentials are missing, or SQS did not answer; one of the classes
                that botocore raises.
        """
        keys = self._endpoint.credentials()
        curl = self._take()
        curl.setopt(pycurl.USERNAME, keys.access_key)
        curl.setopt(pycurl.PASSWORD, keys.secret_key)
        token = [f"X-Amz-Security-Token: {keys.token}"] if keys.token else []
        curl.setopt(pycurl.HTTPHEADER, [*headers, *token])
        curl.setopt(pycurl.POSTFIELDS, body)
        try:
            content = curl.perform_rb()
        except pycurl.error as error:
            raise self._translated(error.args[0], curl) from None
        status, size = curl.getinfo(pycurl.RESPONSE_CODE), curl.getinfo(pycurl.HEADER_SIZE)
        self._idle.append(curl)
        return Response(status, content[:size], content[size:])

    def close(self) -> None:
        """Closes the connections that are not in use."""
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _take(self) -> pycurl.Curl:
        try:
            return self._idle.pop()
        except IndexError:
            return self._connection()

    def _connection(self) -> pycurl.Curl:
        endpoint, curl = self._endpoint, pycurl.Curl()
        for option, value in {
            pycurl.URL: f"{endpoint.url.rstrip('/')}/",
            pycurl.POST: 1,
            # The headers precede the body: a callback for each line takes the interpreter's lock.
            pycurl.HEADER: 1,
            pycurl.AWS_SIGV4: f"aws:amz:{endpoint.region}:sqs",
            pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,
            pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
            # Empty, they keep libcurl from reading the environment by rules of its own.
            pycurl.PROXY: endpoint.proxy,
            pycurl.NOPROXY: "",
            pycurl.CONNECTTIMEOUT: self._connect_seconds,
            pycurl.LOW_SPEED_LIMIT: 1,
            pycurl.LOW_SPEED_TIME: max(1, self._read_seconds - _SPEED_SECONDS),
            pycurl.NOSIGNAL: 1,  # signals are not safe in threads
        }.items():
            curl.setopt(option, value)
        if endpoint.ca_bundle:
            is_directory = Path(endpoint.ca_bundle).is_dir()
            curl.setopt(pycurl.CAPATH if is_directory else pycurl.CAINFO, endpoint.ca_bundle)
        return curl

    def _translated(self, code: int | str, curl: pycurl.Curl) -> BotoCoreError:
        # libcurl's own text is left out; it may quote what the server sent.
        error_class = _ERRORS.get(int(code), HTTPClientError)
        if error_class is ReadTimeoutError and not curl.getinfo(pycurl.PRETRANSFER_TIME):
            error_class = ConnectTimeoutError
        url = self._endpoint.url
        return error_class(endpoint_url=url, proxy_url="the proxy", error=f"libcurl {code}")


_ERRORS: Mapping[int, type[BotoCoreError]] = MappingProxyType(
    {
        pycurl.E_COULDNT_RESOLVE_PROXY: ProxyConnectionError,
        97: ProxyConnectionError,  # CURLE_PROXY, which pycurl does not name
        pycurl.E_COULDNT_RESOLVE_HOST: EndpointConnectionError,
        pycurl.E_COULDNT_CONNECT: EndpointConnectionError,
        pycurl.E_OPERATION_TIMEDOUT: ReadTimeoutError,
        pycurl.E_PARTIAL_FILE: ConnectionClosedError,
        pycurl.E_GOT_NOTHING: ConnectionClosedError,
        pycurl.E_SEND_ERROR: ConnectionClosedError,
        pycurl.E_RECV_ERROR: ConnectionClosedError,
        pycurl.E_SSL_CONNECT_ERROR: SSLError,
        pycurl.E_SSL_CIPHER: SSLError,
        pycurl.E_PEER_FAILED_VERIFICATION: SSLError,
        pycurl.E_SSL_CACERT_BADFILE: SSLError,
        pycurl.E_SSL_ISSUER_ERROR: SSLError,
        pycurl.E_SSL_INVALIDCERTSTATUS: SSLError,
    }
)
