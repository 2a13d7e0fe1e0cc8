"""The benchmarks, and the limits they are held against: `python -m bench [NAME ...]`.

    command      what to run, how long, and where the answers go
    installation a whole stack of its own: durable Postgres, Valkey, services, front door; signatures on
    loads        load generators, each a process of its own
    calls, assigns, sdk, idle, bare, tables
                 the loads: generated stubs, SDK objects, one submit at a time, nothing but gRPC, nothing but Postgres
    statements   the scheduler's hot statements, by name
    limits       what this machine could do at best, measured in the same run
    run          what a case is given, and what it gives
    loaded, depth, replicas
                 the cases: what is run, and what is checked
    filling      a million waiting processes
    cases        the figures: what each is held against, and what it is to reach
    figures      median, spread, machine
    report       results.json, the table, README.md
    profiling    py-spy on the scheduler while a case runs

A time is never an assertion. That the work was done is: every case counts what it left in the server, and a run in
which something is missing ends with an error and without figures.
"""
