"""The page on which people label images, and the few calls behind it. It answers to its own page only."""

from __future__ import annotations

import base64
import io
import threading
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from orchestrator.annotation.sheet import PAGE, Answer, Sheet

if TYPE_CHECKING:
    from fastapi import FastAPI

KEYS = "0123456789abcdefghijklmnopqrstuvwxyz"  # a key a class
POLICY = (
    "default-src 'self'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'"
)


class Given(BaseModel):
    """An answer as the page sends it."""

    annotator: str
    index: int
    answer: int
    seconds: float


def app_for(sheet: Sheet, hosts: list[str]) -> FastAPI:
    """The application. `hosts`: names under which it may be asked; others are refused, so no other page reaches it."""
    from fastapi import FastAPI, HTTPException, Response  # noqa: PLC0415 - only where it serves
    from fastapi.middleware.trustedhost import TrustedHostMiddleware  # noqa: PLC0415

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    writing = threading.Lock()

    def page() -> Response:
        text = (resources.files("orchestrator") / "templates" / "annotate.html").read_text(encoding="utf-8")
        return Response(text, media_type="text/html", headers={"Content-Security-Policy": POLICY})

    def images(annotator: str) -> dict[str, Any]:
        try:
            return page_for(sheet, annotator)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error

    def answer(given: Given) -> dict[str, int]:  # JSON only: another site's form cannot send it
        try:
            with writing:
                sheet.give(given.annotator, Answer(given.index, given.answer, given.seconds))
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        return {"answered": len(sheet.answers(given.annotator))}

    app.add_api_route("/", page)
    app.add_api_route("/images", images)
    app.add_api_route("/answers", answer, methods=["POST"])
    return app


def page_for(sheet: Sheet, annotator: str) -> dict[str, Any]:
    """The next images that an annotator has not answered, with the keys of the classes. No image says its label."""
    answered = sheet.answers(annotator)
    left = [place for place in sheet.order(annotator) if int(sheet.index[place]) not in answered]
    shown = [{"index": int(sheet.index[place]), "image": _png(sheet.images[place])} for place in left[:PAGE]]
    keys = [{"key": KEYS[number], "name": name} for number, name in enumerate(sheet.classes[: len(KEYS)])]
    return {"images": shown, "keys": keys, "answered": len(answered), "total": len(sheet.index)}


def _png(image: Any) -> str:
    """An image as a data address."""
    from PIL import Image  # noqa: PLC0415

    pixels = (np.moveaxis(image, 0, -1) * 255).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3]).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
