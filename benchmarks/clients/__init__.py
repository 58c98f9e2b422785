"""One adapter for each client.

An adapter is a module that runs as a process, so that no client disturbs another: ``python -m
benchmarks.clients.ours JOB``, with a `Job` in JSON. It does what the job says with the other end
at that port, the way the client's own documentation recommends. Its last line is a `Sample`.

A task publishes a message, waits for the broker's confirmation, PUBACK or PUBCOMP, counts it, and
goes on with the next. So as many messages are under way as there are tasks, and a client can gain
nothing by returning early. At QoS 0 a message counts when it is handed over, and the time until
one at QoS 1 behind all of them is confirmed.
"""
