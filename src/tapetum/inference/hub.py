"""An exported model as a repository of the Hugging Face hub: the artefact's files as they are, and a card about them.

Nothing in a repository is executed; a TorchScript artefact, which is a program, is asked for explicitly.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import yaml
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is of requests or httpx, as it uses
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
)

from tapetum.core.errors import CheckpointError, OutputError, first_line
from tapetum.inference.artefact import CARD, Artefact, is_artefact, read_artefact
from tapetum.runs import packaged

if TYPE_CHECKING:
    from huggingface_hub import HfApi

README = "README.md"
LARGEST = 2 * 2**30  # bytes of a repository's artefact; a ViT-L in fp32 has 1.2 GB


def push_to_hub(
    folder: Path,
    repository: str,
    *,
    private: bool = True,
    licence: str | None = None,
    about: str = "",
    api: "HfApi | None" = None,
) -> str:
    """Send an exported model to the hub as one commit; its address there.

    Args:
        folder: of ``tapetum export``; or the name of a model of the package, which goes as ONNX, with its own card and
            licence.
        repository: "organisation/name"; made where it is not there.
        licence: as the hub names them, e.g. "apache-2.0"; None says nothing, which means that nobody may use it.
        about: what else its card says: data, figures, limits.
        api: of huggingface_hub; None uses the address and token that it is set up with.
    Raises:
        CheckpointError: no artefact, or damaged.
        OutputError: the hub refuses it or cannot be reached.
    """
    if packaged.is_packaged(folder):
        from tapetum.inference.export import export_run

        card = "\n\n".join(filter(None, (packaged.read_card(folder), about)))
        with TemporaryDirectory() as place:
            exported = Path(place) / folder.name
            export_run(folder, "onnx", exported)
            return push_to_hub(
                exported, repository, private=private, licence=licence or packaged.LICENCE, about=card, api=api
            )
    if not is_artefact(folder):
        raise CheckpointError(f"{folder}: is no exported model; make one with: tapetum export RUN --out {folder}")
    artefact = read_artefact(folder)
    hub = api or _connect()
    text = write_model_card(artefact, repository, licence=licence, about=about)
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        with TemporaryDirectory() as sent:  # the folder is its owner's, who may have a README of another kind there
            names = [CARD, *artefact.files]
            for name in names:
                (Path(sent) / name).symlink_to((folder / name).resolve())
            (Path(sent) / README).write_text(text, encoding="utf-8")
            done = hub.upload_folder(
                repo_id=repository,
                folder_path=sent,
                allow_patterns=[*names, README],
                commit_message=f"Model {artefact.model} by tapetum export",
            )
    except (OSError, ValueError, HTTPError) as error:
        raise OutputError(
            f"{repository}: cannot be sent to the hub ({first_line(error)}); see `hf auth login`"
        ) from None
    return str(done)


def fetch_from_hub(repository: str, *, revision: str | None = None, api: "HfApi | None" = None) -> Path:
    """The folder of an exported model of the hub, fetched unless it was already; its files are checked.

    Args:
        repository: "organisation/name", also of somebody else.
        revision: branch, tag or commit; a commit alone is sure to be the same files tomorrow.
        api: of huggingface_hub; None uses the address and token that it is set up with.
    Raises:
        CheckpointError: there is no such repository, it holds no artefact, a damaged or too large one, or the hub
            cannot be reached.
    """
    hub = api or _connect()
    try:
        card = Path(hub.hf_hub_download(repository, CARD, revision=revision))
        names = [*read_artefact(card.parent, check_files=False).files]
        size = sum(getattr(each, "size", 0) for each in hub.get_paths_info(repository, names, revision=revision))
        if size > LARGEST:
            raise CheckpointError(f"{repository}: its model has {size} bytes, at most {LARGEST} are fetched")
        folder = Path(hub.snapshot_download(repository, revision=revision, allow_patterns=[CARD, *names]))
    except (OSError, ValueError, HTTPError) as error:
        raise CheckpointError(
            f"{repository}: no model can be fetched from the hub ({first_line(error)}); {_remedy(repository, error)}"
        ) from None
    read_artefact(folder)
    return folder


def _remedy(repository: str, error: Exception) -> str:
    """What to do about a model that could not be fetched."""
    if repository.startswith((".", "/", "~")) or Path(repository).exists():
        return "for a model on this machine use tapetum.load_model"
    answered = isinstance(error, HfHubHTTPError)
    if not answered and isinstance(error, LocalEntryNotFoundError | ConnectionError | TimeoutError | HTTPError):
        return "the hub cannot be reached: check the connection, or give a folder of `tapetum export` to load_model"
    return "compare the name, or give a folder of `tapetum export` to tapetum.load_model"


def write_model_card(artefact: Artefact, repository: str, *, licence: str | None = None, about: str = "") -> str:
    """The text of a repository's first page, with what the hub reads of it; nothing in it is guessed.

    Args:
        about: what the model was trained and measured on, in Markdown.
    """
    settings, pairs = artefact.settings, artefact.calibration["pairs"]
    height, width = settings.size
    facts = {"library_name": "tapetum", "tags": ["person-re-identification", settings.method, artefact.runtime]}
    head = yaml.safe_dump(facts | ({"license": licence} if licence else {}), sort_keys=False)
    trust = ", trust_code=True" if artefact.runtime == "torchscript" else ""
    return f"""---
{head}---

# {repository.rpartition("/")[2]}

A model of Tapetum: pictures of people in, vectors of {artefact.dimension} numbers
and unit length out, whose inner products are similarities.

| | |
|---|---|
| method | {settings.method} |
| pictures | {height} x {width} pixels (height x width), RGB; the model normalises them itself |
| runtime | {artefact.runtime}, weights in {artefact.precision} |
| model id | `{artefact.model}` |
| calibrated for | {", ".join(pairs) or "nothing: a search gives similarities and no probability"} |

{about.strip() or "Its maker says nothing of what it was trained and measured on."}

```python
import tapetum

model = tapetum.from_hub("{repository}"{trust})
vectors = tapetum.embed(model, ["person.jpg"])
```

What a similarity proves is little: an answer is a lead to be checked by a person, and no identification. Do not use
it to stop, accuse or refuse anybody.
"""


def _connect() -> "HfApi":
    from huggingface_hub import HfApi

    return HfApi(library_name="tapetum")
