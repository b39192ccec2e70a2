"""A file is opened itself, or not at all."""

import errno
import os
from pathlib import Path

import pytest

from tapetum.core.unlinked import open_unlinked


@pytest.mark.parametrize("refused_by", ["the system", "a look beforehand"])
def test_what_a_link_leads_to_is_neither_opened_nor_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused_by: str
) -> None:
    if refused_by == "a look beforehand":
        monkeypatch.delattr(os, "O_NOFOLLOW", raising=False)
    elif not hasattr(os, "O_NOFOLLOW"):
        pytest.skip("this system cannot")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(OSError, match="link") as refused:
            open_unlinked(tmp_path / "link", os.O_RDWR | os.O_CREAT)
        assert refused.value.errno == errno.ELOOP
    assert not (tmp_path / "elsewhere").exists()
    os.close(open_unlinked(tmp_path / "own", os.O_RDWR | os.O_CREAT))
    assert (tmp_path / "own").is_file()
