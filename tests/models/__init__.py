"""State machines: any order of calls and of what a server does, against a model in plain Python.

Hypothesis chooses the steps, and finds the shortest order of those that break a promise. Sockets
are real: a server in the same loop does what the machine says, and nothing by itself.
"""
