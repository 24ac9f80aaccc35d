"""The stages of the road: each reads files, calls one library, writes files and returns the numbers worth telling.

A stage is a plain function of paths, its section of the plan and a `Context`; `pyaet.run` chains them and the command
line offers each of them alone.
"""
