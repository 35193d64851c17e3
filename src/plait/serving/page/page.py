"""The page: search, classify, ask and compare two models in a browser, in English and Chinese.

Drawn with Gradio and mounted in the server, below ``/page``, behind `plait.serving.page.guard`, which
reads whatever a visitor sends. Its inputs pass the same limits and lanes as those of the endpoints.
Where the server has API keys, the page asks for a name and its key.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Mapping
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse

from plait.core.errors import MissingExtra
from plait.core.telemetry import switch_off
from plait.serving.http.app import HANDLERS
from plait.serving.http.app import PAGE as PATH
from plait.serving.http.security import Guesses, Keys
from plait.serving.page import hits as page_hits
from plait.serving.page.deeds import Deeds, RequestError, UserError
from plait.serving.page.guard import Button, PageGuard
from plait.serving.page.hits import columns_html, hits_html, view_html
from plait.serving.page.html import CSS, bars_html
from plait.serving.page.uploads import Uploads
from plait.serving.page.words import LANGUAGES, WORDS
from plait.serving.service.service import Service

MOST_HITS: Final = 60


def mount_page(app: FastAPI, service: Service, keys: Mapping[str, str]) -> FastAPI:
    """The application with the page in it.

    Args:
        app: of the server.
        service: behind it.
        keys: API keys by name, which the page then asks for.

    Raises:
        MissingExtra: Gradio is not installed.
    """
    held = Keys(keys)

    def admitted(name: str, key: str) -> bool:
        holder = held.holder(key)
        return holder is not None and holder == name

    @app.get("/", include_in_schema=False)
    @app.get(PATH, include_in_schema=False)
    @app.get(f"{PATH}/", include_in_schema=False)
    async def choose(request: Request) -> RedirectResponse:
        """To the language that the browser asks for first."""
        wanted = request.headers.get("accept-language", "").strip().lower()
        return RedirectResponse(f"{PATH}/{'zh' if wanted.startswith('zh') else 'en'}/")

    uploads = Uploads(service.limits.page_bytes)
    guesses = Guesses() if keys else None
    for language in LANGUAGES:
        gradio, buttons = draw_page(service, language, admitted if keys else None)
        guard = PageGuard(gradio, buttons, service, uploads, guesses=guesses, say=WORDS[language])
        app.mount(f"{PATH}/{language}", guard.application(HANDLERS))
    return app


def draw_page(
    service: Service, language: str, admitted: Any = None
) -> tuple[Any, dict[int, Button]]:
    """Gradio's application that draws the page in one language, and what its buttons do.

    Args:
        service: behind it.
        language: ``en`` or ``zh``.
        admitted: whether a name and a key fit; None where nobody is asked.
    """
    gr = require_gradio()
    page, buttons = build_page(service, language)
    # Mounted on nothing that runs: its queue and its clean-up have nothing to do here.
    aside = gr.mount_gradio_app(
        FastAPI(),
        page,
        path=f"{PATH}/{language}",
        auth=admitted,
        css=CSS + page_hits.CSS,
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        max_file_size=service.limits.picture_bytes,
        footer_links=[],
        show_error=True,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
    )
    return aside.routes[-1].app, buttons


def require_gradio() -> Any:
    """The library. Raises `MissingExtra` without it."""
    switch_off()
    os.environ["GRADIO_RUN_HISTORY"] = "false"  # a store of what people asked, in their browsers
    try:
        import gradio
    except ImportError as error:
        raise MissingExtra("gradio", "page", "the page (--page)") from error
    return gradio


def build_page(service: Service, language: str) -> tuple[Any, dict[int, Button]]:
    """The page (`gradio.Blocks`), with a tab for each thing that the served models can do.

    Args:
        service: behind it.
        language: ``en`` or ``zh``.

    Returns:
        It, and what its buttons do, by their number in its settings.
    """
    gr, say, deeds = require_gradio(), WORDS[language], Deeds(service)
    other = next(code for code in LANGUAGES if code != language)
    with gr.Blocks(title=say["title"], analytics_enabled=False) as page:
        gr.HTML(
            f'<p class="plait-switch"><a href="{PATH}/{other}/" lang="{other}" hreflang="{other}">'
            f"{say['other']}</a></p>"
        )
        with gr.Tabs():
            if service.searcher is not None:
                with gr.Tab(say["search"]):
                    _search_tab(gr, say, deeds, page)
            if deeds.classifying:
                with gr.Tab(say["classify"]):
                    _classify_tab(gr, say, deeds)
            if deeds.answering:
                with gr.Tab(say["ask"]):
                    _ask_tab(gr, say, deeds)
            if deeds.classifying:
                with gr.Tab(say["compare"]):
                    _compare_tab(gr, say, deeds)
    buttons = {number: Button(one.fn, one.inputs, one.outputs) for number, one in page.fns.items()}
    return page, buttons


def _search_tab(gr: Any, say: Mapping[str, str], deeds: Deeds, page: Any) -> None:
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            words = gr.Textbox(label=say["search_words"], placeholder=say["search_hint"])
            where = gr.Textbox(
                label=say["where"],
                placeholder=say["where_hint"],
                info=say["where_info"],
                elem_id="plait-where",
            )
            columns = gr.HTML(js_on_load=page_hits.FILTERS)
            count = gr.Slider(1, MOST_HITS, value=12, step=1, label=say["count"])
            go = gr.Button(say["search_go"], variant="primary")
        with gr.Column(scale=1, min_width=240):
            shown = _picture(gr, say["search_picture"])
    told = gr.Markdown()
    found = gr.HTML(js_on_load=page_hits.CLICKS)
    view = gr.HTML(js_on_load=page_hits.VIEW)
    key = gr.Textbox(visible=False)  # of the hit that was clicked, which the browser puts in

    async def search(words: str, shown: bytes | None, count: float, where: str) -> tuple[str, str]:
        if bool(words.strip()) == (shown is not None):
            raise RequestError(400, say["one_of_two"])
        work = deeds.search(words, shown, int(count), where)
        hits, model, seconds, note = await _done(say, work)
        line = say["found"].format(n=len(hits), ms=round(1000 * seconds), model=model)
        if note is not None:
            line += f"\n\n**{say['not_read']}** {note}"
        return line, hits_html(hits, say)

    async def more(key: str, count: float, where: str) -> tuple[str, str]:
        hits, seconds = await _done(say, deeds.similar(key, int(count), where))
        line = say["alike"].format(n=len(hits), ms=round(1000 * seconds))
        return line, hits_html(hits, say, like=key)

    async def show(key: str) -> str:
        return view_html(await _done(say, deeds.show(key)), say)

    async def tell_columns() -> str:
        return columns_html(await _done(say, deeds.columns()), say)

    inputs = [words, shown, count, where]
    gr.on([go.click, words.submit, where.submit], search, inputs, [told, found], **_PRIVATE)
    found.click(show, [key], [view], js=page_hits.CLICKED, **_PRIVATE)
    found.select(more, [key, count, where], [told, found], js=page_hits.CLICKED, **_PRIVATE)
    page.load(tell_columns, None, [columns], **_PRIVATE)


def _classify_tab(gr: Any, say: Mapping[str, str], deeds: Deeds) -> None:
    with gr.Row():
        with gr.Column(min_width=240):
            shown = _picture(gr, say["picture"])
        with gr.Column(min_width=280):
            model = _models(gr, say["model"], deeds.classifying, 0)
            labels, template = _labels(gr, say)
            go = gr.Button(say["classify_go"], variant="primary")
            bars = gr.HTML()

    async def classify(name: str, shown: bytes | None, labels: str, template: str) -> str:
        given = _checked(say, shown, labels, template)
        rows = await _done(say, deeds.classify(name, *given))
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

    async def ask(name: str, shown: bytes | None, question: str) -> str:
        if shown is None:
            raise RequestError(400, say["needs_picture"])
        if not question.strip():
            raise RequestError(400, say["needs_question"])
        rows = await _done(say, deeds.ask(name, shown, question))
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
        one: str, two: str, shown: bytes | None, labels: str, template: str
    ) -> tuple[str, str, str]:
        given = _checked(say, shown, labels, template)
        found = [await _done(say, deeds.classify(name, *given)) for name in (one, two)]
        alike = found[0][0][0] == found[1][0][0]
        tables = [
            bars_html(rows, name, say["label"], say["probability"])
            for name, rows in zip((one, two), found, strict=True)
        ]
        return say["agree" if alike else "differ"], tables[0], tables[1]

    inputs = [first, second, shown, labels, template]
    gr.on([go.click, template.submit], compare, inputs, [verdict, left, right], **_PRIVATE)


_PRIVATE: Final[dict[str, Any]] = {
    "api_visibility": "private",
    "show_progress": "minimal",
    "queue": False,
}
"""The page's handlers are no endpoints of their own: programs have those below /v1.

Without a queue a press is one request, which `PageGuard` answers.
"""


def _picture(gr: Any, label: str) -> Any:
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
    say: Mapping[str, str], shown: bytes | None, labels: str, template: str
) -> tuple[bytes, list[str], str]:
    names = list(dict.fromkeys(line.strip() for line in labels.splitlines() if line.strip()))
    if shown is None:
        raise RequestError(400, say["needs_picture"])
    if len(names) < 2:
        raise RequestError(400, say["two_labels"])
    if "{}" not in template:
        raise RequestError(400, say["needs_braces"])
    return shown, names, template


async def _done(say: Mapping[str, str], work: Awaitable[Any]) -> Any:
    """The result; what is the user's to mend is shown on the page."""
    try:
        return await work
    except (RequestError, UserError) as error:
        status = error.status if isinstance(error, RequestError) else 400
        raise RequestError(status, say["failed"].format(reason=error)) from error
