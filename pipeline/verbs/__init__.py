"""The use cases: one module for each verb, each a function that the command line calls once."""
