"""Every AWS call and nothing else. Rooms reach these adapters through ports that wiring.py fills."""
