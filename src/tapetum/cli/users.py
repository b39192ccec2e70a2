"""``tapetum users``: who may use the service of a gallery."""

import sys
from typing import Annotated

import typer

from tapetum.cli._serving import Folder, Gallery, find_folder, record, require_libraries

app = typer.Typer(
    help="Users and API keys of a gallery's service. Roles: search < index < administer.",
    epilog="Example: tapetum users add anna --role search --gallery runs/night",
    no_args_is_help=True,
)
keys = typer.Typer(
    help="API keys, for programs; a key has the role of its user.",
    epilog='Example: tapetum users key add recorder --label "nightly indexing" --days 365 --gallery runs/night',
    no_args_is_help=True,
)
app.add_typer(keys, name="key")
Name = Annotated[str, typer.Argument(help="Of the user.")]


@app.command("add")
def add(
    name: Name,
    gallery: Gallery,
    role: Annotated[str, typer.Option(help="search, index or administer.")] = "search",
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="For a program, which gets a key; a password that is there stays.")
    ] = False,
    folder: Folder = None,
) -> None:
    """Add a user, or give one another role and password; the password is asked for.

    Example: tapetum users add anna --role search --gallery runs/night
    """
    require_libraries()
    from tapetum.service.audit import AuditLog
    from tapetum.service.users import UserBook, check_name, check_password, read_role

    check_name(name)  # before anybody types a password, and before it is written down
    place, rights = find_folder(gallery, folder), read_role(role)
    password = None
    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif not no_password:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    if password is not None:
        check_password(password)
    record(AuditLog(place), "user add", user=name, role=rights.label)
    UserBook(place).add(name, rights, password)
    typer.echo(f"{name}: may {rights.label}")


@app.command("list")
def show(gallery: Gallery, folder: Folder = None) -> None:
    """Users and their keys, one a line.

    Example: tapetum users list --gallery runs/night
    """
    require_libraries()
    import time

    from tapetum.footage.clock import format_time
    from tapetum.service.users import UserBook

    users = UserBook(find_folder(gallery, folder)).users()
    for user in users.values():
        typer.echo(f"{user.name}  {user.role.label}  {'password' if user.password else 'no password'}")
        for key in user.keys:
            until = "" if key.expires is None else f", until {format_time(key.expires)}"
            state = " (expired)" if key.expires is not None and key.expires <= time.time() else ""
            typer.echo(f"  key {key.id}  {key.label}, made {format_time(key.made)}{until}{state}")
    if not users:
        typer.echo(f"no users yet; add one with: tapetum users add NAME --role administer --gallery {gallery}")


@app.command("remove")
def remove(name: Name, gallery: Gallery, folder: Folder = None) -> None:
    """Remove a user with their keys; their sessions end at once.

    Example: tapetum users remove anna --gallery runs/night
    """
    require_libraries()
    from tapetum.service.audit import AuditLog
    from tapetum.service.users import UserBook

    place = find_folder(gallery, folder)
    log = AuditLog(place)
    UserBook(place).remove(name, before=lambda: record(log, "user remove", user=name))
    typer.echo(f"{name}: removed")


@keys.command("add")
def add_key(
    name: Name,
    gallery: Gallery,
    label: Annotated[str, typer.Option(help="What the key is for.")],
    days: Annotated[float | None, typer.Option(help="It is good for so long; default: until it is removed.")] = None,
    folder: Folder = None,
) -> None:
    """Make an API key; it is shown once, and only its digest is kept.

    Example: tapetum users key add recorder --label "nightly indexing" --days 365 --gallery runs/night
    """
    require_libraries()
    from tapetum.service.audit import AuditLog
    from tapetum.service.users import UserBook

    place = find_folder(gallery, folder)
    log = AuditLog(place)
    key, secret = UserBook(place).add_key(
        name, label, days, before=lambda key: record(log, "key add", user=name, key=key.id, label=label)
    )
    typer.echo(f"key {key.id} of {name}; keep it, it cannot be shown again:", err=True)
    typer.echo(secret)


@keys.command("remove")
def remove_key(
    key: Annotated[str, typer.Argument(help="Id of the key, of `tapetum users list`.")],
    gallery: Gallery,
    folder: Folder = None,
) -> None:
    """Remove an API key; it is refused from now on.

    Example: tapetum users key remove 1f2e3d4c --gallery runs/night
    """
    require_libraries()
    from tapetum.service.audit import AuditLog
    from tapetum.service.users import UserBook

    place = find_folder(gallery, folder)
    log = AuditLog(place)
    UserBook(place).remove_key(key, before=lambda: record(log, "key remove", key=key))
    typer.echo(f"key {key}: removed")
