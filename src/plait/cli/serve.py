"""``plait serve``: bundles and runs behind HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plait.cli.output import say


def serve(
    models: Annotated[
        list[Path],
        typer.Argument(help="Bundles or run folders; the first is the default model."),
    ],
    index: Annotated[
        Path | None, typer.Option(help="An index for /v1/search, made by one of the models.")
    ] = None,
    root: Annotated[
        list[Path] | None,
        typer.Option(help="A folder whose pictures the index may show (repeatable)."),
    ] = None,
    allow_outside: Annotated[
        bool,
        typer.Option("--allow-outside", help="The index may show any picture of this machine."),
    ] = False,
    host: Annotated[str, typer.Option(help="The address to bind.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    api_keys: Annotated[
        Path | None,
        typer.Option(help="A file of API keys, name:key a line; else PLAIT_API_KEYS is read."),
    ] = None,
    no_keys: Annotated[
        bool, typer.Option("--no-keys", help="Serve other machines without asking for a key.")
    ] = False,
    hostname: Annotated[
        list[str] | None, typer.Option(help="A further name of a server on loopback (repeatable).")
    ] = None,
    cors: Annotated[
        list[str] | None, typer.Option(help="An origin whose pages may call (repeatable).")
    ] = None,
    proxy: Annotated[
        list[str] | None,
        typer.Option(
            help="The address of a reverse proxy that tells its clients' by X-Forwarded-For "
            "(repeatable)."
        ),
    ] = None,
    image_host: Annotated[
        list[str] | None,
        typer.Option(help="A host from which pictures may be fetched by URL (repeatable)."),
    ] = None,
    page: Annotated[
        bool, typer.Option("--page", help="With a page for people, under /page.")
    ] = False,
    tower: Annotated[
        list[str] | None,
        typer.Option(help="A tower on another server, image=http://host:port (repeatable)."),
    ] = None,
    engine: Annotated[str, typer.Option(help="Of bundles: auto, openvino, onnxruntime.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="Of bundles: auto, float32, bfloat16, int8.")
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of inference; by default one a core.")
    ] = None,
    streams: Annotated[
        int,
        typer.Option(min=1, help="Passes at the same time: more throughput, longer each."),
    ] = 1,
    limit: Annotated[
        list[str] | None,
        typer.Option(help="A limit, e.g. deadline=10 (repeatable; see docs/serving.md)."),
    ] = None,
    spare: Annotated[
        bool,
        typer.Option(
            "--spare/--no-spare", help="Keep a process waiting that can replace the worker."
        ),
    ] = True,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve models over HTTP: embeddings as OpenAI's API, search, classify, compare, ask."""
    from plait.serving import require_extra

    require_extra()
    from plait.serving.process.run import run_server

    if page:
        from plait.serving.page.page import require_gradio

        require_gradio()

    run_server(
        models,
        index=index,
        roots=root or [],
        allow_outside=allow_outside,
        host=host,
        port=port,
        api_keys=api_keys,
        no_keys=no_keys,
        hostnames=hostname or [],
        cors=cors or [],
        proxies=proxy or [],
        image_hosts=image_host or [],
        towers=tower or [],
        page=page,
        engine=engine,
        precision=precision,
        threads=threads,
        streams=streams,
        limits=limit or [],
        spare=spare,
        log_level=log_level,
        tell=say,
    )
