"""Measurements of MQTT clients against each other, whose ratios hold on any machine.

``python -m nox -s bench`` runs all of it, and ``python -m benchmarks --help`` shows what there is
to choose from. What makes it fair:

- Every client runs in a process of its own, started for one measurement, on an empty directory. It
  is used the way its own documentation recommends: see `benchmarks.clients`.
- The other end is the same `benchmarks.peer` for all, which does less than any broker could. The
  row "the peer itself" is a bare socket in the place of the client: what no client can exceed. What
  a broker adds is in one work, by mosquitto.
- Windows are as wide as the number of tasks, so that none holds up another's messages.
- The clients take turns, in an order that changes with every round, so that what else happens
  on the machine happens to all. What is printed is the median of the rounds and the extremes, and
  the ratio to the client of reference in the same run.
- The time of the processor is that of the client's process alone, with all of its threads.

======================= ================================================================
`benchmarks.volatile`   receiving and publishing, without a disk
`benchmarks.durable`    messages that survive a crash of the publisher
`benchmarks.connecting` connections, made and ended
`benchmarks.latency`    round trips through mosquitto
`benchmarks.memory`     what idle clients take, and one large message
`benchmarks.growth`     how the cost of a message grows; a command of its own
`benchmarks.operations` what a message costs in bytecodes and calls; a command of its own
`benchmarks.loopback`   the connection that it counts on
`benchmarks.plot`       draws what the works have measured; a command of its own
`benchmarks.works`      what a work is: its cells, its contenders, its figures
`benchmarks.runner`     runs the processes
`benchmarks.other_ends` starts what the clients connect to
`benchmarks.report`     medians, ratios, the table and the JSON
`benchmarks.disk`       the file system, and how often it syncs
`benchmarks.job`        what passes between this process and that of a client
`benchmarks.trips`      times round trips
`benchmarks.resident`   how much memory this process has resident
`benchmarks.clients`    one adapter for each client
`benchmarks.peer`       the other end, on `benchmarks.packets` and `benchmarks.incoming`
======================= ================================================================

A client is added as a module in `benchmarks.clients`, and a `Contender` in each work that it can
do. A work is added as a module beside `benchmarks.durable`, a name in `ALL` of the command, and a
function of its name in the adapters, most of which have it from
`benchmarks.clients.asynchronous` or `benchmarks.clients.threaded`.
"""
