"""sentry-sdk with a DSN: an error, a message, a transaction, a check-in, a log, a session, a client report."""

import sys

import sentry_sdk
from sentry_sdk.crons import monitor

host, key = sys.argv[1:]
scheme, _, rest = host.partition("://")
sentry_sdk.init(
    dsn=f"{scheme}://{key}@{rest}/1",
    release="shop@1.2.0",
    environment="prod",
    server_name="web-1",
    traces_sample_rate=1.0,
    enable_logs=True,
    before_send=lambda event, _hint: None if event.get("message") == "not to be sent" else event,
)
scope = sentry_sdk.get_isolation_scope()
scope.start_session()
with sentry_sdk.start_transaction(op="task", name="reconcile"):
    try:
        {}["order"]
    except KeyError as error:
        sentry_sdk.capture_exception(error)
sentry_sdk.capture_message("cache is slow", level="warning")
sentry_sdk.capture_message("not to be sent")
sentry_sdk.logger.error("payment {id} failed", id=7)
with monitor(monitor_slug="nightly"):
    pass
scope.end_session()
sentry_sdk.get_client().close(timeout=60)
