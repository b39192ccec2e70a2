"""What breaks the contract between recipe, method, sampler and checkpoint: one line, status 2, nothing half-written."""

import importlib.util
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tapetum.methods import build_method
from tapetum.runs.checkpoint import Header, save_checkpoint
from tapetum.runs.recipe import Recipe, write_yaml

Call = Callable[[str], tuple[int, str, str]]
Strangers = Callable[..., str]
Options = dict[str, Any]
TOKENS: Options = {"backbone": "test_vit", "jigsaw": False, "drop_path": 0.0}
TOKENS_OF_BOT: Options = {"backbone": "test_vit", "last_stride": 2, "stem_relu": True}
MAPS: Options = {"backbone": "test_resnet", "last_stride": 2}
ID = 'return {"id": functional.cross_entropy(output.logits, batch.labels)}'
GROUPS = '{"backbone": list(self.reduce.parameters()), "head": list(self.classifier.parameters())}'
EMBED = "def embed(self, images, modalities, camids, *, mirror=False):"
LAST = "    def load_pretrained(self, source):\n"


@pytest.fixture
def a_stranger_s(stranger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Strangers:
    """Writes the stranger's method with some of its text changed, and gives its dotted name."""
    spec = importlib.util.find_spec(stranger)
    assert spec
    assert spec.origin
    text = Path(spec.origin).read_text()
    package = f"broken_{tmp_path.name}"
    (tmp_path / "code" / package).mkdir(parents=True)
    (tmp_path / "code" / package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "code")

    def write(*changes: tuple[str, str]) -> str:
        changed = text
        for old, new in changes:
            assert old in changed
            changed = changed.replace(old, new)
        (tmp_path / "code" / package / "method.py").write_text(changed)
        return f"{package}.method"

    return write


@pytest.fixture(scope="module")
def recipe_file(tiny_recipe: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of one step."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(write_yaml(tiny_recipe(overrides=["schedule.epochs=1", "sampler.steps=1", "data.cache=none"])))
    return path


@pytest.fixture
def refused(call: Call, recipe_file: Path, tmp_path: Path) -> Callable[[str, str], None]:
    """Trains with other settings: it must leave one line, status 2 and nothing else."""

    def check(settings: str, message: str) -> None:
        status, out, err = call(f"tapetum train {recipe_file} --quiet --out {tmp_path / 'run'} {settings}")
        assert (status, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith("tapetum: ")
        assert message in err
        assert not (tmp_path / "run").exists()
        writers = [thread for thread in threading.enumerate() if type(thread).__name__ == "_AsyncWriterThread"]
        assert not writers, "TensorBoard's would write into the folder again"

    return check


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("class Options", "class Settings"), "has no class Options; add a frozen dataclass, empty if need be"),
        (("class Method", "class Network"), "has no class Method; add an nn.Module, see docs/add_method.md"),
        (
            ("@dataclass(frozen=True)\nclass Options:", "class Options:"),
            "its Options is no dataclass; write @dataclass",
        ),
        (("class Method(nn.Module)", "class Method(dict)"), "its Method is no network; derive it from torch.nn.Module"),
        (("self.num_ids =", "self.people ="), "its Method has no num_ids; set self.num_ids = facts.num_ids"),
        (("def losses", "def loss"), "its Method has no losses; add losses(output, batch), see docs"),
        (("def forward", "def go"), "its Method has no forward; add forward(images, modalities, camids)"),
        (("def forward(self, images, modalities, camids)", "def forward(self, images)"), "its forward takes (images);"),
        ((EMBED, EMBED.replace(", *, mirror=False", "")), "write embed(images, modalities, camids, *, mirror=False)"),
        (("def parameter_groups", "def groups"), "its Method has no parameter_groups; add parameter_groups()"),
        ((GROUPS, "list(self.parameters())"), "its parameter_groups() gives a list; give a list of parameters for"),
        (("list(self.reduce.parameters())", "self.reduce.parameters()"), "gives a generator for 'backbone'; give a"),
        ((', "head": list(self.classifier.parameters())', ""), "classifier.weight is in none of backbone; add it to"),
        (
            ("list(self.reduce.parameters())", "list(self.parameters())"),
            "classifier.weight is in backbone and in head;",
        ),
        ((ID, "return [torch.zeros(())]"), "losses of turn 'all' are a list; give a dict of named scalar tensors"),
        ((ID, "return {}"), "losses of turn 'all' are an empty dict; give a dict of named scalar tensors"),
        ((ID, 'return {"id": 1.0}'), "losses of turn 'all': id is a float; give a scalar tensor, e.g. a mean"),
        ((ID, 'return {"id": output.logits[:, 0]}'), "id is a tensor of shape (8,); give a scalar tensor, e.g. a mean"),
        ((ID, ID.replace(")}", ").detach()}")), "have no gradient (id); compute them from what forward gave"),
        ((ID, ID.replace(")}", ') * float("nan")}')), "loss id became nan in epoch 1, step 1; no epoch was complete"),
        ((LAST, "    def turns(self):\n        return ['a']\n" + LAST), "turns() gives str; give objects of tapetum"),
        (
            ("import torch\n", "import torch\nimport nowhere\n"),
            "(ModuleNotFoundError: No module named 'nowhere'); mend",
        ),
        (
            ("import torch\n", "import torch\ndef (\n"),
            "cannot be imported (SyntaxError: invalid syntax (method.py, line",
        ),
    ],
)
def test_a_method_file_that_breaks_the_contract_is_told_which_part_and_what_to_write(
    change: tuple[str, str], message: str, a_stranger_s: Strangers, refused: Callable[[str, str], None]
) -> None:
    name = a_stranger_s(change)
    refused(f"--set method={{name:\\ {name}}}", message)


def test_a_dotted_name_without_a_file_names_the_nearest(
    a_stranger_s: Strangers, refused: Callable[[str, str], None]
) -> None:
    package = a_stranger_s().partition(".")[0]
    refused(f"--set method={{name:\\ {package}.metod}}", f"package {package} has no module metod; did you mean method?")
    refused("--set method={name:\\ ../method}", "../method is no dotted name of a module; write package.module")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("functional.normalize(feature.float())", "2 * functional.normalize(feature.float())"),
            "vectors of length 2;",
        ),
        (("functional.normalize(feature.float())", "feature.float().log()"), "embed gives vectors of length nan; give"),
        (("functional.normalize(feature.float())", "feature.flatten()"), "pictures; give a tensor of shape ("),
        (("functional.normalize(feature.float())", "list(feature)"), "embed gives list for "),
    ],
)
def test_vectors_that_cannot_be_searched_with_are_refused(
    change: tuple[str, str], message: str, a_stranger_s: Strangers, tiny_recipe: Callable[..., Recipe], call: Call,
    tmp_path: Path,
) -> None:  # fmt: skip
    name = a_stranger_s(change)
    write_run(tmp_path / "run.safetensors", name, {}, tiny_recipe(overrides=[f"method={{name: {name}}}"]))
    status, _, err = call(f"tapetum evaluate {tmp_path / 'run.safetensors'} --out {tmp_path / 'cards'} --quiet")
    assert (status, err.count("\n")) == (2, 1), err
    assert message in err
    assert not (tmp_path / "cards").exists()


def write_run(
    path: Path, method: str, options: Options, recipe: Recipe, camids: tuple[int, ...] = (), *, told: bool = True
) -> None:
    """A checkpoint of weights that nobody trained; not told, it keeps no facts, as those of before."""
    torch.manual_seed(0)
    network = build_method(method, options, 8, camids=camids, size=recipe.data.size)
    content = recipe.model_dump(mode="json")
    facts = {"camids": camids, "size": recipe.data.size} if told else {}
    save_checkpoint(path, network, Header(method, options, 8, content, **facts))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            "--set method.backbone=test_vit --set data.size=[60,32]",
            "do not fit pictures of 60 x 32; use data.size [48,",
        ),
        ("--set augment.erazing.probability=1", "augment.erazing is unknown; did you mean erasing?"),
        ("--set 'augment=[{name: flp}]'", "augmentation 'flp' is unknown; did you mean flip?"),
        ("--set 'augment=[{name: flip, probabilty: 1}]'", "(flip).probabilty is unknown; did you mean probability?"),
        ("--set 'augment=[{name: flip, view: 1}]'", "view 1 of all pictures is never drawn, sampler.views is [1, 1]"),
        ("--set 'sampler={name: pkk}'", "sampler 'pkk' is unknown; did you mean pk?"),
        ("--set sampler.bach=4", "sampler.bach is unknown; did you mean batch?"),
        (
            "--set 'method={name: caj, consistency_weight: 1}'",
            "method caj needs 2 of each visible and 1 of each infrared",
        ),
        (
            "--set 'sampler={name: cross_modality, ids: 4, pictures: 2}'",
            "cross_modality needs visible and infrared training pictures, but all 64 are visible; add the infrared",
        ),
        (
            "--set optimiser.own.centres.lr=0.5",
            "optimiser.own.centres names no group; with these options the method builds backbone, head; leave it out",
        ),
        ("--set optimiser.frozen.centres=2", "builds backbone, head; leave it out of optimiser.frozen"),
        ("--set optimiser.frozen.bakbone=2", "the method builds backbone, head; did you mean backbone?"),
        ("--set optimiser.own.head.momentm=0", "optimiser.own.head.momentm is unknown; did you mean momentum?"),
        ("--set optimiser.own.head.lrr=0", "optimiser.own.head.lrr is unknown; did you mean lr?"),
        ("--set optimiser.frozn.head=1", "optimiser.frozn is unknown; did you mean frozen?"),
        ("--set optimiser.frozen.head=soon", "optimiser.frozen.head is 'soon', expected integer"),
    ],
)
def test_sections_that_do_not_go_together_are_refused_before_anything_is_written(
    settings: str, message: str, refused: Callable[[str, str], None]
) -> None:
    refused(settings, message)


def test_a_group_that_the_options_leave_out_is_said_not_to_be_there(call: Call, people: Path, tmp_path: Path) -> None:
    small = "--set method.backbone=test_resnet --set method.last_stride=2 --set data.cache=none"
    command = f"tapetum train bot_synth --data night600={people} {small} --out {tmp_path / 'run'} --quiet"
    status, _, err = call(f"{command} --set method.centre_weight=0")
    assert status == 2
    assert (
        "optimiser.own.centres names no group; with these options the method builds backbone, head; leave it out" in err
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("camids", [(7, 9), (1, 2)])
def test_a_camera_that_was_never_seen_is_answered_for_at_test_and_search(
    camids: tuple[int, ...], tiny_recipe: Callable[..., Recipe], people: Path, call: Call, tmp_path: Path
) -> None:
    run, gallery = tmp_path / "run.safetensors", tmp_path / "gallery.safetensors"
    write_run(run, "transreid", TOKENS, tiny_recipe(overrides=["method={name: transreid}"]), camids)
    query = next((people / "query_3").iterdir())
    for command, told in (
        (f"evaluate {run} --out {tmp_path / 'cards'}", "8 queries"),
        (f"extract {run} night600={people} --out {gallery}", "32 pictures"),
        (f"search {run} --query {query} --gallery {gallery}", query.name),
    ):
        status, out, err = call(f"tapetum {command} --quiet")
        assert status == 0, err
        assert told in out


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("mclnet", MAPS, ""),
        ("bot", TOKENS_OF_BOT, ""),
        ("transreid", TOKENS, "its method cannot be built: method.sie: true, but it is not known which cameras"),
    ],
)
def test_a_checkpoint_without_cameras_and_size_is_read_where_the_method_needs_none_else_says_what_it_lacks(
    method: str, options: Options, message: str, tiny_recipe: Callable[..., Recipe], call: Call, tmp_path: Path
) -> None:
    run = tmp_path / "run.safetensors"
    recipe = tiny_recipe(overrides=[f"method={{name: {method}}}"])
    write_run(run, method, options, recipe, () if method == "mclnet" else (1, 2), told=False)
    status, _, err = call(f"tapetum evaluate {run} --out {tmp_path / 'cards'} --quiet")
    assert status == (2 if message else 0), err
    assert message in err
    assert (tmp_path / "cards").exists() == (not message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((EMBED, EMBED.replace(", *, mirror=False", "")), "write embed(images, modalities, camids, *, mirror=False)"),
        (
            ("return functional.normalize(", "return functional.normalize(torch.from_numpy(feature.numpy()) + 0 * "),
            "the exported graph gives (2, 6) for a batch of 1, PyTorch (1, 6); nothing was written",
        ),
    ],
)
def test_a_method_that_cannot_be_mirrored_or_exported_says_so_and_nothing_is_written(
    change: tuple[str, str], message: str, a_stranger_s: Strangers, tiny_recipe: Callable[..., Recipe], call: Call,
    tmp_path: Path,
) -> None:  # fmt: skip
    whole, run = a_stranger_s(), tmp_path / "run.safetensors"
    write_run(run, whole, {}, tiny_recipe(overrides=[f"method={{name: {whole}}}"]))
    importlib.reload(importlib.import_module(a_stranger_s(change)))
    status, out, err = call(f"tapetum export {run} --to torchscript --out {tmp_path / 'model'}")
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert not (tmp_path / "model").exists()
