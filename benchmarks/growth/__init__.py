"""How the cost of a message grows with something: nothing may be worse than linear.

``python -m benchmarks.growth`` measures all that is in `benchmarks.growth.growths`, for some
minutes; with names behind it, only those. Each number is of a client in a new process, on a
`benchmarks.peer` in another. They take turns over the rounds. What is printed is the median time of
a message by the number, the extremes, and the ratio to a number of reference in the same run.

At the end are the constants: what a unit costs at the largest number, and the exponent with which
the time of a message grows between the two largest. It is 0 where each message costs the same,
however many scopes, filters or messages in flight there are, so that all of them together cost in
proportion to their number. Where the number is the size of a message it is 1 at most.

============================== =========================================================
`benchmarks.growth.growths`    what a growth is, and all of them
`benchmarks.growth.receiving`  by scopes, filters, and the sizes of topic and payload
`benchmarks.growth.publishing` by messages in flight or queued, and by the same sizes
`benchmarks.growth.resending`  reconnecting, by the messages that are not confirmed
`benchmarks.growth.runner`     the processes
`benchmarks.growth.report`     the tables and the constants
============================== =========================================================

`tests/test_growth.py` holds the same without a clock: it counts operations.
"""
