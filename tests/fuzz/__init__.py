"""Fuzzing: ``python -m tests.fuzz NAME --seconds N`` runs one target of targets.py.

With atheris (``pip install atheris``, where it has a wheel) coverage guides it; elsewhere
hypothesis draws the bytes. What a run finds goes into ``corpus/NAME/``, which test_targets.py
replays.
"""
