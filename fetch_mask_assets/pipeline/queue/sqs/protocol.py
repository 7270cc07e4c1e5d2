"""The AWS JSON 1.0 protocol of SQS: headers of a request, answers and errors.

Source: https://smithy.io/2.0/aws/protocols/aws-json-1_0-protocol.html,
https://smithy.io/2.0/aws/protocols/aws-query-protocol.html#awsquerycompatible-trait
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any

from botocore.exceptions import ClientError

from fetch_mask_assets.errors import QueueError
from fetch_mask_assets.pipeline.queue.sqs.transport import Response

NOT_SQS = "check LOGIN_QUEUE_URL and AWS_ENDPOINT_URL; the server there is not SQS."


def request_headers(operation: str) -> tuple[str, ...]:
    """The headers of a request, as lines."""
    return (
        "Content-Type: application/x-amz-json-1.0",
        f"X-Amz-Target: AmazonSQS.{operation}",
        # libcurl waits for a 100 Continue before a long body otherwise.
        "Expect:",
    )


def parse_response(operation: str, response: Response) -> dict[str, Any]:
    """The answer to a request, as a JSON object.

    Raises:
        ClientError: SQS answers with an error.
        QueueError: the answer is not from SQS. A failed read is not an empty read.
    """
    content = _json_object(response.body)
    if response.status != HTTPStatus.OK:
        raise _client_error(operation, response, content or {})
    if content is None or response.header("x-amzn-requestid") is None:
        raise QueueError(f"SQS {operation} is answered by something else: {NOT_SQS}")
    return content


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _client_error(operation: str, response: Response, content: dict[str, Any]) -> ClientError:
    # AWS's message is left out: it may quote the request.
    error = {"Code": _error_code(response, content)}
    metadata = {"HTTPStatusCode": response.status}
    return ClientError({"Error": error, "ResponseMetadata": metadata}, operation)  # type: ignore[typeddict-item]  # as much of it as is used


def _error_code(response: Response, content: dict[str, Any]) -> str:
    """The code that botocore shows: that of the older protocol, if there is one."""
    query_code, separator, _ = (response.header("x-amzn-query-error") or "").partition(";")
    shape = str(content.get("__type", "")).partition(":")[0].rpartition("#")[2]
    code = query_code if separator and query_code else shape
    return code if _CODE.fullmatch(code) else str(response.status)


_CODE = re.compile(r"[A-Za-z0-9._]{1,100}")
