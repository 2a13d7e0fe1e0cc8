"""Crons and generators: workflows that are submitted again and again, on the account of the member who set them up.

The row decides. A cron's row says when it is to be looked at, what is under way, and who has it in hand; Redis only says where
to look (`domain/due.py`). A fire is three steps, and no lock is held over the second:

    begin    one transaction writes what is about to be done: a fire with the id of its workflow, and a claim that runs out
    submit   the scheduler enters the workflow under that id, once, however often it is asked
    settle   one transaction writes what became of it, if the claim is still ours

Whoever comes after a crash finds the fire and does the same under the same ids. So a moment gives one workflow, never two,
whatever died. Generators do likewise with batches of arguments, which are cut in the transaction that takes the argument.
"""
