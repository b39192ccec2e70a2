"""Models opened by where they lie: a run, a checkpoint or an artefact."""

from dataclasses import replace
from pathlib import Path

from tapetum.core.errors import RecipeError, first_line
from tapetum.inference.artefact import ArtefactError, is_artefact, read_artefact
from tapetum.inference.identity import checkpoint_facts, stored_calibration
from tapetum.inference.model import MIN_COSINE, check_cosine
from tapetum.inference.model import Model as Model  # which programs look for here
from tapetum.inference.precision import Device, Precision, resolve_precision
from tapetum.inference.runtimes import SESSIONS, NetworkSession


def open_model(
    place: Path,
    *,
    precision: str = "auto",
    device: Device = "auto",
    mirror: bool | None = None,
    trust_code: bool = False,
) -> Model:
    """Open a run, a checkpoint or an artefact.

    Args:
        place: run folder, checkpoint file or folder of `tapetum export`.
        precision: "fp32", "bf16", or "auto": bf16 where the machine computes it fast and no vector turns away from
            its fp32 form (cosine above 0.999), else fp32.
        device: "auto" takes a GPU where there is one.
        mirror: join each picture with its mirror; None takes the recipe's choice. An artefact's own stands.
        trust_code: a TorchScript artefact is a program; true runs it. For files that you made yourself.
    Raises:
        CheckpointError: nothing there, damaged, of another version, or a library is missing.
        RecipeError: this precision is not available here.
    """
    if not is_artefact(place):
        from tapetum.inference.checkpoints import open_checkpoint
        from tapetum.runs.checkpoint import load_checkpoint

        checkpoint = load_checkpoint(place)
        model = open_checkpoint(checkpoint, place, precision=precision, device=device, mirror=mirror)
        facts = checkpoint_facts(checkpoint.path, model.settings)
        return replace(model, calibration=stored_calibration(place, facts))
    model = open_artefact(place, precision=precision, device=device, trust_code=trust_code)
    if mirror is not None and mirror != model.settings.mirror:
        raise RecipeError(
            f"{place}: mirror is {model.settings.mirror} in this artefact; export the run with "
            f"{'--mirror' if mirror else '--no-mirror'}"
        )
    return model


def open_artefact(folder: Path, *, precision: str = "auto", device: Device = "auto", trust_code: bool = False) -> Model:
    """Open an artefact; arguments as for `open_model`.

    Raises:
        ArtefactError: damaged, of another version, or a library is missing.
        RecipeError: this precision is not available here.
    """
    from tapetum.inference.probe import read_probe

    artefact = read_artefact(folder)
    if artefact.runtime == "torchscript" and not trust_code:
        raise ArtefactError(
            f"{folder}: TorchScript is a program that would run here; allow it for a file of your own (trust_code, "
            "--trust-code), or export to onnx or openvino"
        )

    def start(kind: Precision) -> NetworkSession:
        try:
            return SESSIONS[artefact.runtime](folder, kind, device)
        except (ArtefactError, RecipeError):
            raise
        except Exception as error:  # the libraries raise types of their own
            reason = first_line(error)
            raise ArtefactError(f"{folder}: {artefact.runtime} cannot open it ({reason}); export it again") from error

    kind = resolve_precision(precision, "cpu", str(folder), runtime=artefact.runtime)
    session, cosine = start(kind), 1.0
    if kind != "fp32":
        cosine = check_cosine(session, read_probe(folder), precision, folder)
        if cosine <= MIN_COSINE:
            session, cosine = start("fp32"), 1.0
    return Model(
        artefact.model, artefact.settings, artefact.runtime, artefact.dimension, session, cosine, artefact.calibration
    )
