"""What can go wrong between a name and its model on the hub, in words a user can act on."""

from __future__ import annotations

from profiles.errors import ExitCode, UserError
from profiles.models import catalog

_WITHOUT = "a local folder and the names of the catalog need no network"


class UnreachableError(UserError):
    """The hub could not be asked; what was kept of an earlier answer may do."""


def offline(name: str) -> UnreachableError:
    """The user forbade the network."""
    return UnreachableError(
        f"the hub may not be asked about {name}",
        why="HF_HUB_OFFLINE is set, and this model is neither kept from before nor in the catalog; "
        f"near names there: {', '.join(catalog.near(name)) or 'none'}",
        do=f"unset HF_HUB_OFFLINE, or give another model: {_WITHOUT}",
        where="HF_HUB_OFFLINE",
        code=ExitCode.NO_NETWORK,
    )


def unreachable(name: str, where: str, error: Exception) -> UnreachableError:
    """No answer, or none in time."""
    reason = str(error).partition("\n")[0][:120] or type(error).__name__
    near = ", ".join(catalog.near(name))
    known = f"near names there: {near}" if near else "nor is a name like it"
    return UnreachableError(
        f"the hub cannot be reached for {name}",
        why=f"{reason}; the model is not in the catalog, {known}",
        do=f"check the network or HF_ENDPOINT, or give another model: {_WITHOUT}",
        where=where,
        code=ExitCode.NO_NETWORK,
    )


def refused(name: str, status: int, where: str, retry_after: str = "") -> UserError:
    """An answer that is neither the file nor a reason."""
    if status in {401, 403}:
        return UserError(
            f"the hub does not give {name} to this token",
            why=f"it answered {status}: the token is wrong, too old or may not read this model",
            do="log in again: hf auth login",
            where=where,
            code=ExitCode.REFUSED,
        )
    return UnreachableError(
        f"the hub answers for {name} with an error",
        why=f"status {status}" + (": too many requests" if status == 429 else ""),
        do=f"try again {_when(retry_after)}, or give another model: {_WITHOUT}",
        where=where,
        code=ExitCode.NO_NETWORK,
    )


def _when(retry_after: str) -> str:
    return f"in {retry_after} s" if retry_after.isdecimal() else "later"


def gated(name: str, status: int, where: str) -> UserError:
    """A model behind a licence."""
    why = "you are not logged in" if status == 401 else "your account has not been let in"
    return UserError(
        f"{name} is gated: its licence must be accepted first",
        why=f"the hub answered {status}: {why}",
        do=f"accept the licence on https://huggingface.co/{name}, then: hf auth login",
        where=where,
        code=ExitCode.REFUSED,
    )


def missing(name: str, where: str) -> UserError:
    """No such repository, or a private one."""
    near = catalog.near(name)
    return UserError(
        f"there is no model {name!r} on the hub",
        why=f"near names: {', '.join(near)}" if near else "no name of the catalog is near it",
        do="check the name; for a private model log in first: hf auth login",
        where=where,
        code=ExitCode.NO_INPUT,
    )


def no_revision(name: str, revision: str, where: str) -> UserError:
    """The repository is there, the branch, tag or commit is not."""
    return UserError(
        f"{name} has no revision {revision!r}",
        why="a revision is a branch, a tag or a commit",
        do="leave it out, or take one from the model's page",
        where=where,
        code=ExitCode.NO_INPUT,
    )


def no_config(name: str, where: str) -> UserError:
    """A repository of another kind: GGUF files, an adapter, original checkpoints."""
    return UserError(
        f"{name} has no config.json",
        why="it is not a model for transformers: GGUF files or an adapter alone, perhaps",
        do="give the model that it was made from; its page names it",
        where=where,
        code=ExitCode.NO_INPUT,
    )
