"""The mathematics behind decisions: its lemmas, proofs of the code, notebooks, invariants and scorecard."""
