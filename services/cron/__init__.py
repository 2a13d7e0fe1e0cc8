"""Crons: workflows that are submitted again and again, on the account of the member who set them up.

Each cron is a row with the moment of its next fire. Every replica looks for rows that are due and locks one; whoever holds the
lock submits the workflow under a request id made from the cron and the scheduled moment, and writes the next moment before it
lets go. A crash in between leaves the row due: the next holder submits again under the same request id, and the scheduler
answers with the workflow that is there. So a moment gives one workflow, never two, whatever died.
"""
