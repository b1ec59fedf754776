"""Texts of agent files that name something else: secrets in headers, arguments in an address."""

import re

SECRET_START = "${secret:"  # noqa: S105 - the mark of a reference, no secret

SECRET = re.compile(r"\$\{secret:([A-Za-z_][A-Za-z0-9_.-]*)\}")
"""`${secret:NAME}`; its first group is the name, which is a variable of the environment or a file."""

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_-]*)\}")


def find_secrets(text: str) -> tuple[str, ...]:
    """Return the secrets that `text` names, each once, in their order.

    Raises:
        ValueError: `${secret:` that is not followed by a name and `}`; the message holds nothing of `text`.
    """
    names = tuple(SECRET.findall(text))
    if text.count(SECRET_START) != len(names):
        raise ValueError("a secret is written '${secret:NAME}', its name of letters, digits, '_', '.' and '-'")
    return tuple(dict.fromkeys(names))


def find_arguments(url: str) -> tuple[str, ...]:
    """Return the arguments that `{name}` in `url` stands for, each once, in their order.

    Raises:
        ValueError: braces that are no `{name}`, a secret, or a placeholder where the host is.
    """
    if SECRET_START in url:
        raise ValueError("secrets are resolved in header values only, never in an address")
    if set("{}") & set(_PLACEHOLDER.sub("", url)):
        raise ValueError("an argument is written '{name}', its name of letters, digits, '_' and '-'")
    host = url.partition("://")[2].partition("/")[0].partition("?")[0]
    if _PLACEHOLDER.search(host):
        raise ValueError("the host is fixed: '{name}' may stand after it only")
    return tuple(dict.fromkeys(_PLACEHOLDER.findall(url)))
