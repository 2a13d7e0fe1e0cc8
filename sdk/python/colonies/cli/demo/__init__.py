"""`colonies demo`: the worked example of the Colonies paper, run by real executors on a real server.

    command    the command: server up, run, tables, what to try next
    paper      the example itself, and the run of it with a snapshot in its middle
    tables     the paper's four tables, from what the server says
    children   the two executor processes
    executor   what those processes run
    functions  gen_nums, square and sum
    browser    a browser in place of the one that adds
    gate       what holds the squares until the snapshot is taken

Nothing in the tables is written down beforehand: whatever is printed was read from the server by RPC.
"""
