"""SQS: sending sealed envelopes and small commands, and reading what a queue holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from tocsin.aws.bucket import Bucket
from tocsin.kernel import envelope
from tocsin.kernel.envelope import Envelope
from tocsin.kernel.errors import Refusal, Retry
from tocsin.kernel.sealing import Sealer

#: Message bodies above this go to S3 and the message carries the claim (SQS takes 1 MiB; small messages bill less).
CLAIM_CHECK_BYTES: Final = 200 * 1024


class Queue:
    """One queue, by URL."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self.url = url

    def send_text(self, body: str, delay_s: int = 0) -> None:
        """Raises Retry when the queue did not take the message, whatever the reason."""
        try:
            self._client.send_message(QueueUrl=self.url, MessageBody=body, DelaySeconds=delay_s)
        except (BotoCoreError, ClientError) as error:
            raise Retry(f"the queue did not take the message: {type(error).__name__}") from error

    def send(self, message: Mapping[str, Any], delay_s: int = 0) -> None:
        self.send_text(json.dumps(message, separators=(",", ":")), delay_s)

    def send_many(self, messages: Sequence[tuple[Mapping[str, Any], int]]) -> None:
        """Messages with their delays in seconds; entries that the answer lists as failed are sent again."""
        pending = [
            {"Id": str(i), "MessageBody": json.dumps(message, separators=(",", ":")), "DelaySeconds": delay}
            for i, (message, delay) in enumerate(messages)
        ]
        for _ in range(4):
            failed: set[str] = set()
            for start in range(0, len(pending), 10):
                answer = self._client.send_message_batch(QueueUrl=self.url, Entries=pending[start : start + 10])
                failed |= {entry["Id"] for entry in answer.get("Failed", ())}
            pending = [entry for entry in pending if entry["Id"] in failed]
            if not pending:
                return
        raise Retry(f"{len(pending)} messages were not taken")

    def attributes(self) -> dict[str, int]:
        """Counts of the queue: visible, in flight, delayed (approximate, as SQS gives them)."""
        names = {
            "visible": "ApproximateNumberOfMessages",
            "in_flight": "ApproximateNumberOfMessagesNotVisible",
            "delayed": "ApproximateNumberOfMessagesDelayed",
        }
        answer = self._client.get_queue_attributes(QueueUrl=self.url, AttributeNames=list(names.values()))
        return {name: int(answer["Attributes"].get(attribute, 0)) for name, attribute in names.items()}


class SealedQueue:
    """A queue of authenticated envelopes with a claim check for large ones."""

    def __init__(self, queue: Queue, key: bytes, bucket: Bucket, sealer: Sealer) -> None:
        self._queue = queue
        self._key = key
        self._bucket = bucket
        self._sealer = sealer

    def send(self, message: Envelope) -> None:
        """Raises Retry when the queue or the store did not take it; then nothing was sent."""
        body = envelope.seal(message, self._key, self._sealer)
        if len(body) > CLAIM_CHECK_BYTES:
            key = f"claim/{message.project}/{message.envelope_id}"
            self._bucket.put(key, body.encode("ascii"))
            body = json.dumps({"claim": key})
        self._queue.send_text(body)


def open_message(body: str, key: bytes, bucket: Bucket, sealer: Sealer) -> Envelope:
    """The envelope of a message body, fetched from S3 when the body is a claim. Refuses what is not authentic."""
    try:
        claim = json.loads(body).get("claim")
    except (ValueError, AttributeError, RecursionError) as error:
        raise Refusal("ERR_SCHEMA", "not an envelope") from error
    if isinstance(claim, str) and claim.startswith("claim/"):
        body = bucket.get(claim).decode("ascii", "replace")
    return envelope.open_sealed(body, key, sealer)
