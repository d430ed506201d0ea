"""The command line `tocsin`: talks to a running Tocsin by its HTTP API, and looks after its dead letters."""
