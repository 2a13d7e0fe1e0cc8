"""`colonies profile`: which server, colony and keys to use."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from colonies.cli.connection import settled, tls_options
from colonies.cli.failure import CliError, ExitCode
from colonies.cli.options import Options, group, options_of
from colonies.cli.output import print_fields, print_json, print_table, say
from colonies.errors import ColoniesError
from colonies.keys import PrivateKey
from colonies.profile import Profile, config_file, default_profile, is_loopback, load_profiles, save_profile

app = group("profile", "Profiles: which server, colony and keys to use.")

Name = Annotated[str, typer.Argument(metavar="PROFILE", help="The profile's name.")]


@app.command("list")
def list_profiles(ctx: typer.Context) -> None:
    """List the profiles; the default one is marked."""
    profiles, default = load_profiles(), default_profile()
    if options_of(ctx).as_json:
        print_json([{**_document(profile), "default": name == default} for name, profile in sorted(profiles.items())])
        return
    rows = [
        ("*" if name == default else " ", name, f"{profile.host}:{profile.port}", profile.colony, profile.cluster)
        for name, profile in sorted(profiles.items())
    ]
    print_table((" ", "Profile", "Server", "Colony", "Cluster"), rows, empty=f"no profiles in {config_file()}")


@app.command("use")
def use(ctx: typer.Context, name: Name) -> None:
    """Make a profile the default one."""
    profile = _existing(name)
    save_profile(profile, make_default=True)
    _show(options_of(ctx), profile, f"profile {name} is the default now")


@app.command("show")
def show(ctx: typer.Context, name: Annotated[str | None, typer.Argument(metavar="[PROFILE]")] = None) -> None:
    """Show what a command run now would use: the profile, with the environment and the command line on top of it."""
    options = options_of(ctx)
    profile = settled(replace(options, profile=name or options.profile))
    _show(options, profile, "")


@app.command("env")
def env(ctx: typer.Context, name: Annotated[str | None, typer.Argument(metavar="[PROFILE]")] = None) -> None:
    """Print what `show` shows as lines for a shell: eval "$(colonies profile env)". For programs that read no profiles."""
    options = options_of(ctx)
    variables = _variables(settled(replace(options, profile=name or options.profile)))
    if options.as_json:
        print_json(variables)
        return
    for variable, value in variables.items():
        say(f"export {variable}={shlex.quote(value)}")


@app.command("add")
def add(
    ctx: typer.Context,
    name: Name,
    owner_key_file: Annotated[Path | None, typer.Option(help="The colony owner's key file, if you have it.")] = None,
    server_owner_key_file: Annotated[Path | None, typer.Option(help="The server owner's key file, if you have it.")] = None,
    default: Annotated[bool, typer.Option(help="Make it the default profile.")] = True,
) -> None:
    """Add a profile, or change one, with what --host, --port, --colony, --cluster, --key-file and the TLS options say.

    TLS: --ca-file FILE to trust a private authority, --tls to trust the public ones; --no-tls for plaintext, which another
    machine is only spoken to in when this says so.
    """
    options = options_of(ctx)
    before = load_profiles().get(name, Profile(name=name))
    given: dict[str, Any] = {
        "host": options.host,
        "port": options.port,
        "colony": options.colony,
        "cluster": options.cluster,
        "key_file": _absolute(options.key_file),
        "owner_key_file": _absolute(owner_key_file),
        "server_owner_key_file": _absolute(server_owner_key_file),
        **tls_options(options),
    }
    profile = replace(before, **{key: value for key, value in given.items() if value is not None})
    save_profile(profile, make_default=default)
    _show(options, profile, f"saved profile {name} in {config_file()}")


def _absolute(path: Path | None) -> str | None:
    # A profile is used from any working directory.
    return None if path is None else str(path.expanduser().absolute())


def _existing(name: str) -> Profile:
    profiles = load_profiles()
    if name not in profiles:
        msg = f"there is no profile {name!r} (profiles: {', '.join(sorted(profiles)) or 'none'})"
        raise CliError(msg, ExitCode.NOT_FOUND)
    return profiles[name]


def _document(profile: Profile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "host": profile.host,
        "port": profile.port,
        "cluster": profile.cluster,
        "colony": profile.colony,
        "key_file": profile.key_file,
        "owner_key_file": profile.owner_key_file,
        "server_owner_key_file": profile.server_owner_key_file,
        "tls": profile.tls,
        "ca_file": profile.ca_file,
        "cert_file": profile.cert_file,
        "cert_key_file": profile.cert_key_file,
    }


def _variables(profile: Profile) -> dict[str, str]:
    texts = ("host", "cluster", "colony", "key_file", "ca_file", "cert_file", "cert_key_file")
    known = {name: str(getattr(profile, name)) for name in texts}
    # Plaintext to this machine needs no permission, and none that would then hold for every other one.
    choice = {True: "on", False: "" if is_loopback(profile.host) else "off", None: ""}[profile.tls]
    known |= {"port": str(profile.port), "tls": choice}
    return {f"COLONIES_{name.upper()}": value for name, value in known.items() if value}


def _show(options: Options, profile: Profile, remark: str) -> None:
    if options.as_json:
        print_json(_document(profile))
        return
    if remark:
        say(remark)
    print_fields(
        [
            ("Profile", profile.name),
            ("Server", f"{profile.host}:{profile.port}"),
            ("Cluster", profile.cluster),
            ("Colony", profile.colony),
            ("Key", profile.key_file),
            ("Identity", _identity(profile)),
            ("Colony owner's key", profile.owner_key_file),
            ("Server owner's key", profile.server_owner_key_file),
            ("TLS", _transport(profile)),
            ("Certificate", profile.cert_file),
        ]
    )


def _transport(profile: Profile) -> str:
    try:
        tls = profile.transport()
    except ColoniesError as error:
        return f"({error})"
    if tls is None:
        return "off"
    return f"on, trusting {tls.ca_file or 'public authorities'}"


def _identity(profile: Profile) -> str:
    if profile.key is not None:
        return profile.key.identity
    if not profile.key_file:
        return ""
    try:
        return PrivateKey.load(Path(profile.key_file).expanduser()).identity
    except ColoniesError as error:
        return f"({error})"
