"""A model on the Hugging Face hub, by its config.json and the headers of its weight files.

Decides what is asked for and what an answer means. Of a weight file only the header is fetched, by
HTTP ranges of exactly its length: a server that would send the whole file is not listened to. What
was found is kept for a week, and longer while the hub cannot be reached. The client library brings
the user's token, proxies and mirror (HF_ENDPOINT).
"""

from __future__ import annotations

import json
import os
import re
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from profiles.facts import Model
from profiles.models import hub_errors
from profiles.models.dimensions import from_config, is_wrapped
from profiles.models.families import has_class
from profiles.models.model import CONFIG_NAME, measured, predicted, refuse_quantized
from profiles.models.safe_config import MAX_JSON_BYTES, bad_file, refuse_code
from profiles.models.safetensors_header import (
    INDEX_NAME,
    MAX_HEADER_BYTES,
    Measured,
    indexed_names,
    measure,
)
from profiles.runs import durable
from profiles.runs.rundir import read_json

TIMEOUT_SECONDS: Final = 5.0
KEPT_SECONDS: Final = 7 * 24 * 3600.0
_BUSY: Final = frozenset({429, 500, 502, 503, 504})
_WAITS_SECONDS: Final = (0.3, 1.0)
_MOST_WAIT_SECONDS: Final = 5.0
"""A hub that wants more patience is told to the user instead."""
_SCHEMA: Final = 1
_NUM_THREADS: Final = 8
_SINGLE: Final = "model.safetensors"
_YES: Final = frozenset({"1", "ON", "YES", "TRUE"})  # as the client library reads its switches


def fetch(name: str, *, revision: str | None = None, cache_dir: Path) -> Model:
    """Facts of a model on the hub; raises UserError where it cannot be had or is not known."""
    place = cache_dir / (re.sub(r"[^\w.\-]+", "--", f"{name}@{revision or 'main'}") + ".json")
    kept = read_json(place) or {}
    kept = kept if kept.get("schema") == _SCHEMA else {}
    if kept and 0 <= time.time() - float(kept.get("asked", 0)) < KEPT_SECONDS:
        return _model(kept)
    try:
        record = _ask(name, revision)
    except hub_errors.UnreachableError:
        if kept:
            return _model(kept)
        raise
    model = _model(record)
    with suppress(OSError):  # a home that cannot be written to is no reason to know nothing
        place.parent.mkdir(mode=durable.PRIVATE_DIR, parents=True, exist_ok=True)
        durable.write_json(place, record)
    return model


def _model(record: dict[str, Any]) -> Model:
    """The facts in a record of what the hub said."""
    config, where = record["config"], record["where"]
    model = from_config(config, name=record["id"], where=where)
    if record["weights"] is None:
        return predicted(model, config, where)
    model = measured(model, Measured(**record["weights"]), config, where)
    return replace(model, weight_bytes=record["weight_bytes"])


def _ask(name: str, revision: str | None) -> dict[str, Any]:
    """Fetch the configuration and the headers; refuse what a local folder is refused for."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in _YES:
        raise hub_errors.offline(name)
    repository = _Repository(name, revision)
    where = repository.url(CONFIG_NAME)
    with _told(name, revision, where):
        config = repository.json(CONFIG_NAME)
        refuse_code(config, where, has_class)
        refuse_quantized(config, name, where)
        model = from_config(config, name=name, where=where)  # before anything else is fetched
        shards = repository.weight_files()
        headers = _headers(repository, shards)
    found = measure(
        [(shard, header) for shard, (header, _) in zip(shards, headers, strict=True)],
        tied=model.tied_embeddings,
        num_layers=model.num_layers,
        wrapped=is_wrapped(config),
    )
    return {
        "schema": _SCHEMA,
        "asked": time.time(),
        "id": name,
        "where": where,
        "config": config,
        "weights": asdict(found) if shards else None,
        "weight_bytes": sum(size for _, size in headers),
    }


def _headers(repository: _Repository, shards: list[str]) -> list[tuple[dict[str, Any], int]]:
    """All headers, several at a time; the first failure ends the rest."""
    pool = ThreadPoolExecutor(_NUM_THREADS)
    try:
        return list(pool.map(repository.header, shards))
    finally:
        pool.shutdown(cancel_futures=True)


class _Repository:
    """One revision of a repository, as far as it is read."""

    def __init__(self, name: str, revision: str | None) -> None:
        from huggingface_hub import constants, get_token  # noqa: PLC0415 - 0.2 s

        self._name, self._revision = name, revision
        # The library's own headers would have it ask the hub which programs it knows.
        self._headers = {"User-Agent": "tunedeck"}
        self._headers["Accept-Encoding"] = "identity"  # a range of a compressed file is no header
        token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def url(self, file: str) -> str:
        """Where a file lies; the endpoint is read anew, the library reads it once."""
        from huggingface_hub import hf_hub_url  # noqa: PLC0415

        endpoint = os.environ.get("HF_ENDPOINT") or None
        url: str = hf_hub_url(self._name, file, revision=self._revision, endpoint=endpoint)
        return url

    def json(self, file: str) -> dict[str, Any]:
        """A whole JSON file of bounded size."""
        data, _ = self._get(file, None, MAX_JSON_BYTES)
        return _object(data, file, self.url(file))

    def weight_files(self) -> list[str]:
        """Names of the safetensors files, [] if there are none."""
        from huggingface_hub.errors import EntryNotFoundError  # noqa: PLC0415

        try:
            return indexed_names(self.json(INDEX_NAME), self.url(INDEX_NAME))
        except EntryNotFoundError:
            pass
        try:
            self._get(_SINGLE, (0, 7), 8)
        except EntryNotFoundError:
            return []
        return [_SINGLE]

    def header(self, file: str) -> tuple[dict[str, Any], int]:
        """The header of a safetensors file and the size of the file in bytes."""
        prefix, size = self._get(file, (0, 7), 8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 0 < length <= min(MAX_HEADER_BYTES, size - 8):
            raise _torn(file, self.url(file))
        data, _ = self._get(file, (8, 7 + length), length)
        header = _object(data, file, self.url(file))
        header.pop("__metadata__", None)
        return header, size

    def _get(self, file: str, part: tuple[int, int] | None, most: int) -> tuple[bytes, int]:
        """Bytes of a file, and its whole size; a hub that is busy is asked again, not for long."""
        from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

        for wait_seconds in _WAITS_SECONDS:
            try:
                return self._get_once(file, part, most)
            except HfHubHTTPError as error:
                if error.response.status_code not in _BUSY:
                    raise
                asked = error.response.headers.get("Retry-After", "")
                wait = float(asked) if asked.isdecimal() else wait_seconds
                if wait > _MOST_WAIT_SECONDS:
                    raise
            time.sleep(wait)
        return self._get_once(file, part, most)

    def _get_once(self, file: str, part: tuple[int, int] | None, most: int) -> tuple[bytes, int]:
        """One request; reads no more than `most` bytes."""
        from huggingface_hub.utils import get_session, hf_raise_for_status  # noqa: PLC0415

        headers = dict(self._headers)
        if part is not None:
            headers["Range"] = f"bytes={part[0]}-{part[1]}"
        url = self.url(file)
        stream = get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_SECONDS)
        with stream as response:
            if response.status_code >= 400:
                response.read()  # the library looks for a message in it
            hf_raise_for_status(response)
            if part is not None and response.status_code != 206:
                raise _whole(url)
            data = b""
            for piece in response.iter_bytes():
                data += piece
                if len(data) > most:
                    raise _torn(file, url)
            total = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
        return data, int(total[1]) if total else len(data)


@contextmanager
def _told(name: str, revision: str | None, where: str) -> Iterator[None]:
    """Turn the client library's errors into ours."""
    from huggingface_hub import errors  # noqa: PLC0415

    try:
        yield
    except errors.GatedRepoError as error:
        raise hub_errors.gated(name, error.response.status_code, where) from error
    except errors.RevisionNotFoundError as error:
        raise hub_errors.no_revision(name, str(revision), where) from error
    except errors.RepositoryNotFoundError as error:
        raise hub_errors.missing(name, where) from error
    except errors.EntryNotFoundError as error:
        raise hub_errors.no_config(name, where) from error
    except errors.HFValidationError as error:
        raise hub_errors.missing(name, where) from error
    except errors.HfHubHTTPError as error:
        answer = error.response
        patience = answer.headers.get("Retry-After", "")
        raise hub_errors.refused(name, answer.status_code, where, patience) from error
    except (errors.HTTPError, errors.OfflineModeIsEnabled, OSError) as error:
        raise hub_errors.unreachable(name, where, error) from error


def _object(data: bytes, file: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value
    raise _torn(file, where)


def _torn(file: str, where: str) -> Exception:
    return bad_file(
        f"{file} on the hub cannot be read",
        where,
        why="it is cut off, too large, or not what its name says",
        do="try again; if it stays so, the repository is damaged",
    )


def _whole(where: str) -> Exception:
    return bad_file(
        "the server does not send parts of files",
        where,
        why="without them the weights themselves would have to be fetched",
        do="unset HF_ENDPOINT, or download the model and give its folder",
    )
