"""Secrets kept out of what is written and of what our processes inherit.

A run directory is copied to colleagues and into bug reports, and the environment of a process can
be read by others of the same user, so tokens belong into neither. Training needs none: its model
and data are local files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

MASK: Final = "[removed]"
KEPT_NAMES: Final = "TUNEDECK_KEEP_ENV"
"""The variable that names others, with commas between them, which are kept all the same."""
_LEAST_VALUE_CHARS: Final = 8
"""Shorter values would also mask ordinary words."""

_SECRET_NAME: Final = re.compile(
    r".*(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|(API|ACCESS|PRIVATE)_?KEY(_ID)?)"
    r"|(.*_)?(PAT|PASS|PASSFILE|AUTH|COOKIE|DSN|NETRC)|.*_KEY|.*_SECRET_.*"
    r"|AWS_.*|KUBECONFIG|PGPASSFILE|SSH_AUTH_SOCK|.*_AUTH_CONFIG|.*(TOKEN|CREDENTIALS)_(FILE|PATH)",
    re.IGNORECASE,
)
_SECRET_TEXT: Final = re.compile(
    r"""
    (?<=://)[^\s/@:]*:[^\s/@]+(?=@)                        # user:password@host
    | \b(?:hf|api_org)_(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{30,}  # Hugging Face
    | (?<![\w/\-])sk-                                      # OpenAI, Anthropic and others
      (?: (?=[A-Za-z_\-]*\d)(?=[a-z0-9_\-]*[A-Z])[A-Za-z0-9_\-]{20,}
        | (?:or-v1-)?[0-9a-f]{32,} )
    | \b(?:gh[pousr]_|github_pat_)[A-Za-z0-9_]{16,}
    | \bglpat-[A-Za-z0-9_\-]{16,}
    | \bxox[abeprs]-(?=[A-Za-z\-]*\d)[A-Za-z0-9\-]{16,}     # Slack
    | \bAIza(?=[A-Za-z_\-]*\d)[A-Za-z0-9_\-]{35}\b         # Google
    | \b(?:npm_|dop_v1_|pypi-AgEI)(?=[A-Za-z_\-]*\d)[A-Za-z0-9_\-]{20,}
    | \beyJ[A-Za-z0-9_\-]{10,}\.eyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,}  # JSON Web Token
    | -----BEGIN[ A-Z]{0,20}\ PRIVATE\ KEY-----
    | \b(?:AKIA|ASIA)(?=[A-Z]{0,15}\d)[A-Z0-9]{16}\b       # Amazon
    | (?<=\b[Bb]earer\s)(?=[A-Za-z._~+/=\-]*\d)[A-Za-z0-9._~+/=\-]{20,}
    """,
    re.VERBOSE,
)
"""As long and as mixed as real tokens, so that names of files and words that begin alike are none.

Hostile text takes linear time: no repeat holds what another match of its kind may begin after.
"""
_PEM_END: Final = re.compile(r"-----END[ A-Z]{0,20} PRIVATE KEY-----")
_PEM_LINES: Final = re.compile(r"[A-Za-z0-9+/=\\\s]*")
_MOST_PEM_CHARS: Final = 20_000
_SIGNS: Final = (
    (re.compile(rb""), ("earer",)),
    (re.compile(rb"-"), ("sk-", "glpat-", "xox")),
    (re.compile(rb"J|A(?:KIA|SIA|I)"), ("eyJ", "AKIA", "ASIA", "AIza")),
    (re.compile(rb"@|-AEI|PRIVATEKEY"), ("://", "pypi-AgEI", " PRIVATE KEY-----")),
    (re.compile(rb"_"), ("hf_", "api_org_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_")),
    (re.compile(rb"_"), ("npm_", "dop_")),
)
"""One of these stands in every secret, or before it; with what of it `signs` has."""
_NEVER_DROPPED: Final = frozenset(
    {"CONDA_PREFIX", "HOME", "LD_LIBRARY_PATH", "PATH", "PWD", "PYTHONPATH", "VIRTUAL_ENV"}
)
"""No process starts right without its paths, and a folder's name may look like a token."""


def is_secret_name(name: str) -> bool:
    """Whether an environment variable is called like one that holds a secret."""
    return _SECRET_NAME.fullmatch(name) is not None


def holds_secret(text: str) -> bool:
    """Whether something in the text looks like a token or a password in an address."""
    return _SECRET_TEXT.search(text) is not None


def may_hold_secret(text: str, signs: bytes) -> bool:
    """Whether it is worth looking for one, at little cost.

    `signs`: the text in UTF-8 without small letters and white space.
    """
    for needed, beginnings in _SIGNS:
        if needed.search(signs):
            for beginning in beginnings:
                if beginning in text:
                    return True
    return False


def secrets(text: str) -> Iterator[tuple[int, int]]:
    """First character of each and the one after the last; a private key with all of its lines."""
    end, closing = 0, _Closing(text)
    for found in _SECRET_TEXT.finditer(text):
        if found.start() < end:
            continue
        end = found.end()
        if found[0].startswith("-----BEGIN"):
            end = closing.after(end)
        yield found.start(), end


class _Closing:
    """Where private keys of a text end; each end is looked for once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._next = _PEM_END.search(text)

    def after(self, start: int) -> int:
        """Behind the end mark of the key that begins here, or as far as its lines go."""
        while self._next is not None and self._next.start() < start:
            self._next = _PEM_END.search(self._text, start)
        if self._next is not None and self._next.end() - start < _MOST_PEM_CHARS:
            return self._next.end()
        lines = _PEM_LINES.match(self._text, start)
        assert lines is not None  # any number of characters
        return lines.end()


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment less the variables that hold secrets, by their names or their values.

    Variables that hold paths are kept whatever their values look like, and those whose names stand,
    with commas between them, in TUNEDECK_KEEP_ENV.
    """
    asked = {name.strip() for name in environment.get(KEPT_NAMES, "").split(",")}
    kept = _NEVER_DROPPED | asked
    return {
        name: value
        for name, value in environment.items()
        if name in kept or not (is_secret_name(name) or holds_secret(value))
    }


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """The text with tokens, and the values of secret variables of `environment`, masked."""
    values = {
        value
        for name, value in (environment or {}).items()
        if is_secret_name(name) and len(value) >= _LEAST_VALUE_CHARS
    }
    for value in sorted(values, key=len, reverse=True):  # one may be a part of another
        text = text.replace(value, MASK)
    return _SECRET_TEXT.sub(MASK, text)
