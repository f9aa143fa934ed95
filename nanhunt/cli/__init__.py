"""The command line: options in, a handful of calls, an exit code."""
