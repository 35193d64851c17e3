"""The page: search, classify, ask and compare two models in a browser, in English and Chinese.

Built with Gradio and mounted in the server, below ``/page``. Its inputs pass the same limits and
lanes as those of the endpoints; uploads, which Gradio takes, wait on disk for an hour at most. Where
the server has API keys, the page asks for a name and its key.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Mapping
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse

from plait.core.errors import MissingExtra
from plait.core.telemetry import switch_off
from plait.serving.app import PAGE as PATH
from plait.serving.page_deeds import Deeds, RequestError, UserError
from plait.serving.page_html import CSS, bars_html, hits_html
from plait.serving.page_words import LANGUAGES, WORDS
from plait.serving.service import Service

MOST_HITS: Final = 60
KEPT_SECONDS: Final = (600, 3600)  # how often uploads are looked at, and how old they get


def mount_page(app: FastAPI, service: Service, keys: Mapping[str, str]) -> FastAPI:
    """The application with the page in it.

    Args:
        app: of the server.
        service: behind it.
        keys: API keys by name, which the page then asks for.

    Raises:
        MissingExtra: Gradio is not installed.
    """
    gr = require_gradio()

    def admitted(name: str, key: str) -> bool:
        wanted = keys.get(name, "")
        return bool(wanted) and hmac.compare_digest(wanted.encode(), key.encode())

    @app.get(PATH, include_in_schema=False)
    @app.get(f"{PATH}/", include_in_schema=False)
    async def choose(request: Request) -> RedirectResponse:
        """To the language that the browser asks for first."""
        wanted = request.headers.get("accept-language", "").strip().lower()
        return RedirectResponse(f"{PATH}/{'zh' if wanted.startswith('zh') else 'en'}/")

    for language in LANGUAGES:
        app = gr.mount_gradio_app(
            app,
            build_page(service, language),
            path=f"{PATH}/{language}",
            auth=admitted if keys else None,
            css=CSS,
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            max_file_size=service.limits.picture_bytes,
            footer_links=[],
            show_error=True,
            enable_monitoring=False,
            ssr_mode=False,
        )
    return app


def require_gradio() -> Any:
    """The library. Raises `MissingExtra` without it."""
    switch_off()
    try:
        import gradio
    except ImportError as error:
        raise MissingExtra("gradio", "page", "the page (--page)") from error
    return gradio


def build_page(service: Service, language: str) -> Any:
    """The page (`gradio.Blocks`) in one language, with a tab for each thing that the served models can do.

    Args:
        service: behind it.
        language: ``en`` or ``zh``.
    """
    gr, say, deeds = require_gradio(), WORDS[language], Deeds(service)
    other = next(code for code in LANGUAGES if code != language)
    with gr.Blocks(title=say["title"], analytics_enabled=False, delete_cache=KEPT_SECONDS) as page:
        gr.HTML(
            f'<p class="plait-switch"><a href="{PATH}/{other}/" lang="{other}" hreflang="{other}">'
            f"{say['other']}</a></p>"
        )
        with gr.Tabs():
            if service.searcher is not None:
                with gr.Tab(say["search"]):
                    _search_tab(gr, say, deeds)
            if deeds.classifying:
                with gr.Tab(say["classify"]):
                    _classify_tab(gr, say, deeds)
            if deeds.answering:
                with gr.Tab(say["ask"]):
                    _ask_tab(gr, say, deeds)
            if deeds.classifying:
                with gr.Tab(say["compare"]):
                    _compare_tab(gr, say, deeds)
    return page


def _search_tab(gr: Any, say: Mapping[str, str], deeds: Deeds) -> None:
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            words = gr.Textbox(label=say["search_words"], placeholder=say["search_hint"])
            where = gr.Textbox(
                label=say["where"], placeholder=say["where_hint"], info=say["where_info"]
            )
            count = gr.Slider(1, MOST_HITS, value=12, step=1, label=say["count"])
            go = gr.Button(say["search_go"], variant="primary")
        with gr.Column(scale=1, min_width=240):
            shown = _picture(gr, say["search_picture"])
    told = gr.Markdown()
    found = gr.HTML()

    async def search(words: str, shown: str | None, count: float, where: str) -> tuple[str, str]:
        if bool(words.strip()) == (shown is not None):
            raise gr.Error(say["one_of_two"])
        hits, model, seconds = await _done(gr, say, deeds.search(words, shown, int(count), where))
        line = say["found"].format(n=len(hits), ms=round(1000 * seconds), model=model)
        return line, hits_html(hits, say["nothing"], say["no_picture"])

    inputs = [words, shown, count, where]
    gr.on([go.click, words.submit, where.submit], search, inputs, [told, found], **_PRIVATE)


def _classify_tab(gr: Any, say: Mapping[str, str], deeds: Deeds) -> None:
    with gr.Row():
        with gr.Column(min_width=240):
            shown = _picture(gr, say["picture"])
        with gr.Column(min_width=280):
            model = _models(gr, say["model"], deeds.classifying, 0)
            labels, template = _labels(gr, say)
            go = gr.Button(say["classify_go"], variant="primary")
            bars = gr.HTML()

    async def classify(name: str, shown: str | None, labels: str, template: str) -> str:
        given = _checked(gr, say, shown, labels, template)
        rows = await _done(gr, say, deeds.classify(name, *given))
        return bars_html(rows, name, say["label"], say["probability"])

    inputs = [model, shown, labels, template]
    gr.on([go.click, template.submit], classify, inputs, [bars], **_PRIVATE)


def _ask_tab(gr: Any, say: Mapping[str, str], deeds: Deeds) -> None:
    with gr.Row():
        with gr.Column(min_width=240):
            shown = _picture(gr, say["picture"])
        with gr.Column(min_width=280):
            model = _models(gr, say["model"], deeds.answering, 0)
            question = gr.Textbox(label=say["question"], placeholder=say["question_hint"])
            go = gr.Button(say["ask_go"], variant="primary")
            bars = gr.HTML()

    async def ask(name: str, shown: str | None, question: str) -> str:
        if shown is None:
            raise gr.Error(say["needs_picture"])
        if not question.strip():
            raise gr.Error(say["needs_question"])
        rows = await _done(gr, say, deeds.ask(name, shown, question))
        return bars_html(rows, rows[0][0], say["answer"], say["probability"])

    gr.on([go.click, question.submit], ask, [model, shown, question], [bars], **_PRIVATE)


def _compare_tab(gr: Any, say: Mapping[str, str], deeds: Deeds) -> None:
    if len(deeds.classifying) < 2:
        gr.Markdown(say["only_one"])
        return
    with gr.Row():
        with gr.Column(min_width=240):
            shown = _picture(gr, say["picture"])
        with gr.Column(min_width=280):
            labels, template = _labels(gr, say)
            go = gr.Button(say["compare_go"], variant="primary")
    verdict = gr.Markdown()
    with gr.Row():
        with gr.Column(min_width=280):
            first = _models(gr, say["model_a"], deeds.classifying, 0)
            left = gr.HTML()
        with gr.Column(min_width=280):
            second = _models(gr, say["model_b"], deeds.classifying, 1)
            right = gr.HTML()

    async def compare(
        one: str, two: str, shown: str | None, labels: str, template: str
    ) -> tuple[str, str, str]:
        given = _checked(gr, say, shown, labels, template)
        found = [await _done(gr, say, deeds.classify(name, *given)) for name in (one, two)]
        alike = found[0][0][0] == found[1][0][0]
        tables = [
            bars_html(rows, name, say["label"], say["probability"])
            for name, rows in zip((one, two), found, strict=True)
        ]
        return say["agree" if alike else "differ"], tables[0], tables[1]

    inputs = [first, second, shown, labels, template]
    gr.on([go.click, template.submit], compare, inputs, [verdict, left, right], **_PRIVATE)


_PRIVATE: Final[dict[str, Any]] = {"api_visibility": "private", "show_progress": "minimal"}
"""The page's handlers are no endpoints of their own: programs have those below /v1."""


def _picture(gr: Any, label: str) -> Any:
    # The file as it came, so that decoding is the server's own, with its limits.
    return gr.Image(
        label=label,
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard"],
        height=260,
    )


def _models(gr: Any, label: str, names: list[str], which: int) -> Any:
    return gr.Dropdown(names, value=names[which], label=label, visible=len(names) > 1)


def _labels(gr: Any, say: Mapping[str, str]) -> tuple[Any, Any]:
    labels = gr.Textbox(label=say["labels"], placeholder=say["labels_hint"], lines=4)
    return labels, gr.Textbox(label=say["template"], value="{}")


def _checked(
    gr: Any, say: Mapping[str, str], shown: str | None, labels: str, template: str
) -> tuple[str, list[str], str]:
    names = list(dict.fromkeys(line.strip() for line in labels.splitlines() if line.strip()))
    if shown is None:
        raise gr.Error(say["needs_picture"])
    if len(names) < 2:
        raise gr.Error(say["two_labels"])
    if "{}" not in template:
        raise gr.Error(say["needs_braces"])
    return shown, names, template


async def _done(gr: Any, say: Mapping[str, str], work: Awaitable[Any]) -> Any:
    """The result; what is the user's to mend is shown on the page."""
    try:
        return await work
    except (RequestError, UserError) as error:
        raise gr.Error(say["failed"].format(reason=error)) from error
