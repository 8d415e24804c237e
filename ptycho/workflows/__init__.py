"""The steps of a job in order, for any backend: simulate, inspect, train, reconstruct, run, evaluate, report."""
