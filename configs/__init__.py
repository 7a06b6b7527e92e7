"""Experiments as plain data: each file says what differs from the defaults of the package."""
