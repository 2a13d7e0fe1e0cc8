"""What happens in the colonies of these tests."""

from tests.audit.author import FAILED, WAITING, Author, Process, key_of


def plain(author: Author) -> list[Process]:
    """A workflow that goes well; one of its attempts sets its outputs before it closes."""
    nodes = author.submit_workflow(author.user)
    for process in nodes:
        author.assign(process)
        output = author.set_output(process) if process is nodes[0] else ""
        author.close([process], output_call=output)
    return nodes


def bumpy(author: Author) -> list[Process]:
    """Attempts are retried, lost, too slow and never arrive; then it goes well."""
    nodes = author.submit_workflow(author.owner)
    first = nodes[0]
    author.assign(first)
    author.close([first], errors=["disk full", 'a "quoted" line\n\u0001'], retry=True)
    for reason, outcome in (("LEASE_EXPIRED", 4), ("MAX_EXEC_TIME", 3), ("UNDELIVERED", 6)):
        author.assign(first)
        author.event(first, reason, WAITING, outcome=outcome, errors=[f"attempt {first.attempt}: {reason}"])
    for process in nodes:
        author.assign(process)
        author.close([process])
    return nodes


def failed(author: Author) -> list[Process]:
    """One fails, what waits for it does too; the workflow is taken up again, and goes well."""
    nodes = author.submit_workflow(author.user)
    author.assign(nodes[0])
    author.close([nodes[0]], errors=["no such file: grüße"])
    for child in nodes[1:]:
        author.event(child, "PARENT_FAILED", FAILED)
    author.retry(author.user, nodes)
    for process in nodes:
        author.assign(process)
        author.close([process])
    return nodes


def cancelled(author: Author) -> list[Process]:
    """The colony's owner cancels it, one of its processes running."""
    nodes = author.submit_workflow(author.user)
    author.assign(nodes[0])
    author.cancel(author.owner, nodes, workflow=True)
    return nodes


def growing(author: Author) -> list[Process]:
    """A running attempt adds to its workflow."""
    nodes = author.submit_workflow(author.user, 2)
    author.assign(nodes[0])
    nodes += author.add_children(nodes[0], 2)
    for process in nodes:
        if process is not nodes[0]:
            author.assign(process)
        author.close([process])
    return nodes


def batch(author: Author) -> list[Process]:
    """Processes outside of workflows, submitted by one call and closed by another; one is cancelled, one waits too long."""
    processes = author.submit(author.user, 6)
    for process in processes[:4]:
        author.assign(process)
    author.close(processes[:4])
    author.cancel(author.user, processes[4:5], workflow=False)
    author.event(processes[5], "MAX_WAIT_TIME", FAILED)
    return processes


def recurring(author: Author) -> list[Process]:
    """The cron service submits several workflows for a member, under ids of its choice; it cancels the last."""
    chosen = [author.new_id() for _ in range(3)]
    flows = author.submit_workflows(author.cron_service, [1, 3, 2], on_behalf_of=author.user, chosen=chosen)
    for process in [*flows[0], *flows[1]]:
        author.assign(process)
        author.close([process])
    author.cancel(author.cron_service, flows[2], workflow=True, on_behalf_of=author.user)
    return [process for flow in flows for process in flow]


def several(author: Author) -> list[Process]:
    """A member submits several workflows by one call."""
    flows = author.submit_workflows(author.owner, [2, 1])
    for flow in reversed(flows):
        author.assign(flow[0])
        author.close(flow[:1])
    return [process for flow in flows for process in flow]


STORIES = (plain, bumpy, failed, cancelled, growing, batch, recurring, several)


def told(workflows: int, seed: str = "") -> Author:
    """A colony with so many workflows, of all stories, in which members come and go."""
    author = Author(seed)
    for number in range(workflows):
        if number % 50 == 25:
            author.executor = author.add_executor(f"exec-{number}", key_of(f"{seed} {number}"))
        STORIES[number % len(STORIES)](author)
    return author
