"""What attackers, networks, signals and cancellation do: docs/topics/security.md has the catalogue.

The long ones are marked ``siege``.
"""
