"""Decisions: which service may do what is asked, at the least weight, and a proof of it that a stranger can check.

documents     closed documents: one table gives the published JSON Schema and the check
types         structural subtyping of a declared subset of JSON Schema
contracts     what a service offers, needs and promises, and its life from draft to retired
policies      permit and forbid rules in a language that cannot fail
analysis      what a change of rules newly allows or forbids, by Z3 (imported only there)
snapshots     immutable registry states by hash, deltas, the pointer, bounded staleness
exchange      contracts as A2A agent cards and MCP registry entries
changes       registering, moving, governing and sweeping, as edits
merkle        RFC 6962 roots and prefix proofs
routing       the decision function, its gates and order
certificates  proofs and receipts of decisions
plans         several services one after another, under limits, with a dual certificate
control       breakers, weights, budgets, hysteresis, the service level monitor, health
"""
