"""The benchmarks, and the limits they are held against: `python -m bench [NAME ...]`.

    __main__     what to run, how long, and where the answers go
    installation a whole stack of its own: durable Postgres, Valkey, four services, front door; signatures on
    loads        load generators, each a process of its own
    calls, sdk, idle, bare
                 the loads: generated stubs, SDK objects, one submit at a time, and nothing but gRPC
    limits       what this machine could do at best, measured in the same run
    cases        the figures: what is run, what is checked, and which limit it is held against
    figures      median, spread, machine
    report       results.json, the table, README.md
    profiling    py-spy on the scheduler while a case runs

A time is never an assertion. That the work was done is: every case counts what it left in the server, and a run in
which something is missing ends with an error and without figures.
"""
