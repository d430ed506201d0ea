"""Quality on data with known answers, kept beside the project and never inside it: see python -m bench.quality."""
