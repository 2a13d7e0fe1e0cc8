"""`colonies certificates`: the TLS certificates of a server that `colonies up --tls` started."""

import typer

from colonies.cli.local_stack import LocalStack
from colonies.cli.options import group, options_of
from colonies.cli.output import print_json, print_table, say
from colonies.cli.stack import DataDir

app = group("certificates", "TLS certificates of the server on this machine, which `colonies up --tls` makes.")


@app.command("list")
def list_certificates(ctx: typer.Context, data_dir: DataDir = None) -> None:
    """Show the certificates and when they expire. They are renewed before that while the server runs."""
    expiries = LocalStack(data_dir).certificate_expiries()
    if options_of(ctx).as_json:
        print_json([{"name": name, "expires": expires.isoformat()} for name, expires in expiries.items()])
        return
    print_table(("Certificate", "Expires (UTC)"), [(name, f"{at:%Y-%m-%d %H:%M}") for name, at in expiries.items()])


@app.command("renew")
def renew(ctx: typer.Context, data_dir: DataDir = None) -> None:
    """Replace the certificates by new ones of the same authority. A server that runs takes them up without a restart."""
    stack = LocalStack(data_dir)
    stack.renew_certificates()
    if options_of(ctx).as_json:
        print_json({"renewed": True, "data_dir": str(stack.data_dir)})
    else:
        say("the certificates are renewed; a running server uses them for new connections within seconds")
