"""Who may use the service: users with a role and a password, and API keys, in one file that only its owner can read.

Passwords are kept as Argon2 hashes. API keys hold 256 random bits, so that a plain SHA-256 of one gives nothing away;
the key itself is shown once, when it is made.
"""

import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from tapetum.core.atomic import make_folder, write_with
from tapetum.core.errors import TapetumError, nearest_name
from tapetum.core.locks import locked
from tapetum.gallery.store import SECONDS_A_DAY

FORMAT = 1
FILE = "users.json"
SHORTEST_PASSWORD = 12  # characters
LONGEST_PASSWORD = 1024
KEY_PREFIX = "tapetum_"
OWNER = "owner"  # who has the token of a server on loopback; no user is called so
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_HASHER = PasswordHasher()  # the library's defaults follow RFC 9106


class UserError(TapetumError):
    """A user, role, password or key cannot be as asked."""


class Role(IntEnum):
    """What somebody may do; each role may do all that the one before may."""

    SEARCH = 1
    INDEX = 2
    ADMINISTER = 3

    @property
    def label(self) -> str:
        """As people write it."""
        return self.name.lower()


@dataclass(frozen=True)
class Key:
    """An API key, without the key."""

    id: str  # in lists and in the audit log
    label: str  # what it is for
    digest: str  # SHA-256 of the key, hexadecimal
    made: float  # seconds since 1970-01-01 UTC
    expires: float | None = None  # the same; None never


@dataclass(frozen=True)
class User:
    """Somebody who may use the service."""

    name: str
    role: Role
    password: str = ""  # Argon2 hash; empty where they use keys only
    keys: tuple[Key, ...] = ()

    @property
    def stamp(self) -> str:
        """Changes with the password, so that sessions from before end."""
        return hashlib.sha256(self.password.encode()).hexdigest()


class UserBook:
    """The users of one gallery; reads the file again whenever another process has written it.

    What a change's `before` is called for is sure to be possible and not done yet: where it raises, nothing changes.

    Args:
        folder: where `users.json` is.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._seen: tuple[int, int, int] | None = None
        self._users: dict[str, User] = {}
        self._keys: dict[str, tuple[User, Key]] = {}

    def users(self) -> dict[str, User]:
        """Name to user.

        Raises:
            UserError: the file is damaged, or of a newer version.
        """
        self._look()
        return dict(self._users)

    def find(self, name: str) -> User | None:
        """A user by name."""
        self._look()
        return self._users.get(name)

    def find_key(self, key: str) -> tuple[User, Key] | None:
        """Whose key this is; it may have expired."""
        self._look()
        return self._keys.get(hashlib.sha256(key.encode(errors="replace")).hexdigest())

    def check_password(self, name: str, password: str) -> User | None:
        """The user, where the password is right; takes a while on purpose."""
        nobody = _hash_of_nobody()  # for every log-in, so that the first takes as long with any name
        user = self.find(name)
        known = user is not None and user.password != "" and len(password) <= LONGEST_PASSWORD
        try:
            _HASHER.verify(user.password if known and user else nobody, password[:LONGEST_PASSWORD])
        except (Argon2Error, InvalidHashError):
            return None
        return user if known else None

    def add(self, name: str, role: Role, password: str | None) -> User:
        """Add a user, or change role and password of one.

        Args:
            password: 12 characters or more; None keeps the one they have, or gives none.
        Raises:
            UserError: name or password will not do.
        """
        check_name(name)
        if password is not None:
            check_password(password)
        with self._changing() as users:
            before = users.get(name, User(name, role))
            digest = before.password if password is None else _HASHER.hash(password)
            users[name] = replace(before, role=role, password=digest)
        return users[name]

    def remove(self, name: str, before: Callable[[], None] | None = None) -> None:
        """Remove a user and their keys; their sessions end at once.

        Args:
            before: writes it down.
        Raises:
            UserError: there is none of that name.
        """
        with self._changing() as users:
            self._get(users, name)
            if before is not None:
                before()
            del users[name]

    def add_key(
        self, name: str, label: str, days: float | None = None, before: Callable[[Key], None] | None = None
    ) -> tuple[Key, str]:
        """Make an API key.

        Args:
            days: it is good for; None for ever.
            before: writes it down.
        Returns:
            What is kept, and the key itself, which nobody can show again.
        Raises:
            UserError: no such user, or no label.
        """
        if not label or len(label) > 200 or not label.isprintable():
            raise UserError(f"key of {name}: label {label[:40]!r}; say in up to 200 letters what the key is for")
        if days is not None and not 0 < days < 36_525:
            raise UserError(f"key of {name}: good for {days:g} days; want more than 0 and less than a century")
        secret = KEY_PREFIX + secrets.token_urlsafe(32)
        now = time.time()
        expires = None if days is None else now + days * SECONDS_A_DAY
        key = Key(secrets.token_hex(4), label, hashlib.sha256(secret.encode()).hexdigest(), now, expires)
        with self._changing() as users:
            user = self._get(users, name)
            if before is not None:
                before(key)
            users[name] = replace(user, keys=(*user.keys, key))
        return key, secret

    def remove_key(self, key_id: str, before: Callable[[], None] | None = None) -> None:
        """Remove an API key.

        Args:
            before: writes it down.
        Raises:
            UserError: there is none.
        """
        with self._changing() as users:
            for user in users.values():
                kept = tuple(key for key in user.keys if key.id != key_id)
                if len(kept) < len(user.keys):
                    if before is not None:
                        before()
                    users[user.name] = replace(user, keys=kept)
                    return
            raise UserError(f"key {key_id!r}: there is none; `tapetum users list` shows their ids")

    def _get(self, users: dict[str, User], name: str) -> User:
        if name not in users:
            raise UserError(f"user {name!r}: unknown; {nearest_name(name, users) if users else 'there are none yet'}")
        return users[name]

    def _look(self) -> None:
        try:
            state = self.path.stat()
        except FileNotFoundError:
            self._seen, self._users, self._keys = None, {}, {}
            return
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror}); correct its permissions") from None
        seen = (state.st_mtime_ns, state.st_ino, state.st_size)
        if seen == self._seen:
            return
        users = read_users(self.path)
        self._keys = {key.digest: (user, key) for user in users.values() for key in user.keys}
        self._users, self._seen = users, seen

    @contextmanager
    def _changing(self) -> Iterator[dict[str, User]]:
        """The users to change; written when the block ends well, one process at a time."""
        make_folder(self.path.parent)
        with locked(self.path.with_suffix(".lock"), None):
            users = read_users(self.path) if self.path.exists() else {}
            yield users
            write_users(self.path, users)
        self._look()


@cache
def _hash_of_nobody() -> str:
    """Checked where there is no such user, so that it takes as long; made at the first log-in, as it takes a while."""
    return _HASHER.hash(secrets.token_hex())


def check_name(name: str) -> None:
    """Refuse a name that no user can have.

    Raises:
        UserError: it will not do.
    """
    if not _NAME.fullmatch(name) or name == OWNER:
        raise UserError(f"user {name!r}: use another name, of up to 64 letters, digits, '.', '_', '@' and '-'")


def check_password(password: str) -> None:
    """Refuse a password that is too short or too long.

    Raises:
        UserError: it will not do.
    """
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise UserError(
            f"password: has {len(password)} characters; choose {SHORTEST_PASSWORD} to {LONGEST_PASSWORD}, "
            "e.g. four words"
        )


def read_role(text: str) -> Role:
    """A role by its name.

    Raises:
        UserError: another word.
    """
    names = {role.label: role for role in Role}
    if text not in names:
        raise UserError(f"role {text!r}: unknown; {nearest_name(text, names)}")
    return names[text]


def read_users(path: Path) -> dict[str, User]:
    """Name to user, from a file.

    Raises:
        UserError: it is damaged, or of a newer version.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        if content["format"] > FORMAT:
            raise UserError(f"{path}: format {content['format']} of a newer Tapetum; update Tapetum")
        return {
            name: User(name, read_role(one["role"]), str(one["password"]), tuple(Key(**key) for key in one["keys"]))
            for name, one in content["users"].items()
        }
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); correct its permissions") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: damaged; restore it from a backup, or remove it and add the users again") from None


def write_users(path: Path, users: dict[str, User]) -> None:
    """Write users whole or not at all, readable by the owner alone.

    Raises:
        OutputError: it cannot be written.
    """
    content = {
        "format": FORMAT,
        "users": {
            name: {"role": user.role.label, "password": user.password, "keys": [asdict(key) for key in user.keys]}
            for name, user in sorted(users.items())
        },
    }
    text = (json.dumps(content, indent=1) + "\n").encode()

    def write(file: BinaryIO) -> None:
        if hasattr(os, "fchmod"):  # Windows had none before Python 3.13; there the folder's rights hold
            os.fchmod(file.fileno(), 0o600)
        file.write(text)

    write_with(path, write)
