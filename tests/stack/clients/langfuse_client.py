"""Langfuse's current SDK, which sends OpenTelemetry: a span with a generation in it, and a score."""

import logging
import sys

from langfuse import Langfuse

logging.basicConfig(level=logging.WARNING)
host, key = sys.argv[1:]
langfuse = Langfuse(base_url=host, public_key="tocsin", secret_key=key, timeout=60)
with langfuse.start_as_current_observation(name="answer a question", as_type="span") as span:
    with langfuse.start_as_current_observation(
        name="complete", as_type="generation", model="gpt-5-mini", input="Where is my order?"
    ) as generation:
        generation.update(output="On its way.", usage_details={"input": 42, "output": 7})
    span.score(name="helpful", value=0.9)
langfuse.flush()
langfuse.shutdown()
