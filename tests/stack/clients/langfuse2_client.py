"""Langfuse's SDK of version 2, which posts batches to the ingestion endpoint: trace, generation, score."""

import logging
import sys

from langfuse import Langfuse

logging.basicConfig(level=logging.WARNING)
host, key = sys.argv[1:]
langfuse = Langfuse(host=host, public_key="tocsin", secret_key=key, timeout=60)
trace = langfuse.trace(name="answer a question", user_id="u-7")
generation = trace.generation(name="complete", model="gpt-5-mini", input="Where is my order?")
generation.end(output="On its way.", usage={"input": 42, "output": 7, "unit": "TOKENS"})
trace.score(name="helpful", value=0.9)
langfuse.flush()
langfuse.shutdown()
