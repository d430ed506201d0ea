"""Connectors: what other systems' senders say, in their own words, becomes events; what we answer, theirs too.

A connector is a folder: `mapping.toml` says where events come from and how to answer, and beside it lie sample
requests with the events they must become. What no mapping can say (binary framing, lists inside a text, kept
state) is a small module here.
"""
