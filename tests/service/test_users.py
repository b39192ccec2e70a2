"""The file of users: complete or as before, for its owner alone, without a secret."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tapetum.service import users
from tapetum.service.users import Role, UserBook, UserError, check_password, read_role

PASSWORD = "four words make one"


def test_a_user_comes_back_with_role_password_and_keys(tmp_path: Path) -> None:
    book = UserBook(tmp_path)
    book.add("anna", Role.SEARCH, PASSWORD)
    key, secret = book.add_key("anna", "a script")
    again = UserBook(tmp_path)
    found = again.find_key(secret)
    assert found is not None
    assert (found[0].name, found[1].id) == ("anna", key.id)
    assert again.check_password("anna", PASSWORD) is not None
    assert again.check_password("anna", PASSWORD + "x") is None
    assert again.check_password("otto", PASSWORD) is None


def test_the_file_is_the_owners_alone_and_holds_no_secret(tmp_path: Path) -> None:
    book = UserBook(tmp_path)
    book.add("anna", Role.SEARCH, PASSWORD)
    _, secret = book.add_key("anna", "a script")
    assert os.name == "nt" or book.path.stat().st_mode & 0o777 == 0o600
    text = book.path.read_text()
    assert PASSWORD not in text
    assert secret not in text
    assert "$argon2id$" in text


def test_keys_hold_256_random_bits(tmp_path: Path) -> None:
    book = UserBook(tmp_path)
    book.add("robot", Role.INDEX, None)
    made = {book.add_key("robot", "x")[1].removeprefix(users.KEY_PREFIX) for _ in range(20)}
    assert len(made) == 20
    assert {len(each) for each in made} == {43}  # 32 bytes in base 64


def test_a_user_without_a_password_cannot_log_in_with_an_empty_one(tmp_path: Path) -> None:
    book = UserBook(tmp_path)
    book.add("robot", Role.INDEX, None)
    assert book.check_password("robot", "") is None


def test_a_change_by_another_process_is_seen(tmp_path: Path) -> None:
    first, second = UserBook(tmp_path), UserBook(tmp_path)
    first.add("anna", Role.SEARCH, PASSWORD)
    assert second.find("anna") is not None
    second.remove("anna")
    assert first.find("anna") is None


def test_changes_at_the_same_time_lose_nobody(tmp_path: Path) -> None:
    names = [f"user{number}" for number in range(12)]
    threads = [threading.Thread(target=UserBook(tmp_path).add, args=(name, Role.SEARCH, None)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(UserBook(tmp_path).users()) == sorted(names)


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "a" * 65, "ünal\n", "owner"])
def test_names_that_would_confuse_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="user "):
        UserBook(tmp_path).add(name, Role.SEARCH, PASSWORD)


def test_passwords_have_a_least_length(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="12 to 1024"):
        check_password("short")
    with pytest.raises(UserError, match="12 to 1024"):
        check_password("x" * 1025)
    check_password("x" * 12)


def test_errors_name_what_was_meant(tmp_path: Path) -> None:
    book = UserBook(tmp_path)
    book.add("anna", Role.SEARCH, PASSWORD)
    with pytest.raises(UserError, match="did you mean anna"):
        book.remove("ana")
    with pytest.raises(UserError, match="did you mean search"):
        read_role("serch")
    with pytest.raises(UserError, match="there is none"):
        book.remove_key("00000000")
    with pytest.raises(UserError, match="what the key is for"):
        book.add_key("anna", "")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', '{"format": 1, "users": {"anna": {}}}', "null"])
def test_a_damaged_file_lets_nobody_in_and_says_so(tmp_path: Path, content: str) -> None:
    (tmp_path / users.FILE).write_text(content)
    with pytest.raises(UserError, match="damaged"):
        UserBook(tmp_path).users()


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / users.FILE).write_text('{"format": 2, "users": {}}')
    with pytest.raises(UserError, match="newer Tapetum"):
        UserBook(tmp_path).users()


def test_hashing_costs_what_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # not the quick one of these tests
    assert users._HASHER.memory_cost >= 19 * 1024
    assert users._HASHER.time_cost >= 2


def test_importing_the_users_hashes_nothing() -> None:
    code = """
import argon2

argon2.PasswordHasher.hash = None
import tapetum.service.users
"""
    subprocess.run([sys.executable, "-c", code], check=True)
