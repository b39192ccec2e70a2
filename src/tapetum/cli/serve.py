"""``tapetum serve``: a gallery for people with a browser and for programs."""

import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

from tapetum.cli._serving import Folder, Gallery, require_libraries


def command(
    gallery: Gallery,
    model: Annotated[
        Path | None, typer.Option(help="Where the gallery's model is now; default: where it was at indexing.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    public_name: Annotated[
        list[str] | None, typer.Option(help="Name by which browsers call this server; repeatable.")
    ] = None,
    behind_proxy: Annotated[
        str | None, typer.Option(help="Address of a reverse proxy whose forwarded headers are believed.")
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file.")] = None,
    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="Let other machines connect without TLS; passwords can be read then.")
    ] = False,
    footage_root: Annotated[
        list[Path] | None, typer.Option(help="Folder below which index jobs may read; repeatable. Default: no jobs.")
    ] = None,
    detector: Annotated[
        str, typer.Option(help="Of index jobs: auto, FILE.onnx, torchvision:NAME, background, as for `tapetum index`.")
    ] = "auto",
    detector_layout: Annotated[
        str | None, typer.Option(help="Of index jobs, as for `tapetum index`; so are the next four.")
    ] = None,
    detector_weights: Annotated[Path | None, typer.Option(help="File with a torchvision detector's weights.")] = None,
    person_class: Annotated[int | None, typer.Option(help="Which class of an ONNX or TFLite file is a person.")] = None,
    detector_precision: Annotated[str, typer.Option(help="Of the detector: fp32 or bf16.")] = "fp32",
    brighten: Annotated[
        str, typer.Option(help="Dark frames before detection: auto, gamma, off, an enhancer or a run that brightens.")
    ] = "auto",
    keep_days: Annotated[
        float | None, typer.Option(help="From now on the gallery erases what is older, each day.")
    ] = None,
    requests_per_minute: Annotated[float, typer.Option(min=1, help="Of one user or key.")] = 1200,
    precision: Annotated[str, typer.Option(help="Of the model's arithmetic: auto, fp32 or bf16.")] = "auto",
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "warning",
    folder: Folder = None,
) -> None:
    """Serve a gallery: search, browse, index, delete, export, by page and API.

    On this machine alone it prints an address with a token in it. Others can reach it only once there are users.

    \b
    Examples:
      tapetum serve --gallery runs/night
      tapetum serve --gallery runs/night --footage-root /data/footage --keep-days 30
      tapetum users add anna --role administer --gallery runs/night
      tapetum serve --gallery runs/night --behind-proxy 127.0.0.1 --public-name people.example.org
    """
    require_libraries()
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # what it says about damaged pictures goes to their senders
    from tapetum.core.errors import RecipeError
    from tapetum.footage.detectors import choose_detector
    from tapetum.gallery.opening import open_gallery
    from tapetum.indexing.finder import choose_finder
    from tapetum.searching.gallery_model import open_gallery_model
    from tapetum.searching.retention import write_keep_days
    from tapetum.service.server import ServerAddress, bind, run_server, set_log_level
    from tapetum.service.state import ServiceOptions, build_service, service_folder
    from tapetum.service.users import UserBook

    set_log_level(log_level)
    for root in footage_root or []:
        if not root.is_dir():
            raise RecipeError(f"--footage-root {root}: is no folder; name an existing one")
    address = ServerAddress(
        host, port, tuple(public_name or ()), behind_proxy, tls_certificate, tls_key, plain_http=plain_http
    )

    choice = choose_detector(detector)
    build = choose_finder(
        detector,
        choice,
        layout=detector_layout,
        person_class=person_class,
        weights=detector_weights,
        brighten=brighten,
        precision=detector_precision,
    )
    if footage_root:
        build()  # a wrong one is an error now, not at the first job
    with open_gallery(gallery, folder=folder) as store:
        address.check(bool(UserBook(service_folder(store, folder)).users()), gallery)
        embedder = open_gallery_model(store, model, precision=precision)
        with bind(address) as listening:
            if keep_days is not None:
                write_keep_days(store, keep_days)
            token = secrets.token_urlsafe(32) if address.is_private else None
            options = ServiceOptions(
                hosts=address.hosts,
                token=token,
                footage_roots=tuple(footage_root or ()),
                detector=build,
                requests_per_minute=requests_per_minute,
            )
            service = build_service(store, embedder, options, folder=folder)
            url = address.url(listening.getsockname()[1])
            typer.echo(f"{gallery}: {store.count()} rows, model {embedder.id}")
            if choice.reason and footage_root:
                typer.echo(f"detector of index jobs: {choice.name}, which auto took: {choice.reason}")
            typer.echo(f"open {url}login#token={token}" if token else f"open {url} and log in")
            typer.echo("stop with Ctrl-C")
            run_server(service, address, listening)
    typer.echo("stopped")
