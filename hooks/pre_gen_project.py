"""Check every answer before a file is written, and report all problems at once.

Each rule is a regular expression with the same meaning in Python and in JSON Schema (ECMA 262
with the flag `u`), so a web form can enforce exactly the same rules.
"""

import json
import re
import sys
from collections import namedtuple
from collections.abc import Mapping

# tojson escapes quotes and all characters that are not ASCII, so no answer can end this literal.
ANSWERS = json.loads(
    r"""
{{ cookiecutter | tojson }}
""".strip()
)


# `pattern` is the rule (None for a boolean). The other fields are texts for the user.
# The import of typing.NamedTuple would take longer than all the checks of good answers.
Rule = namedtuple("Rule", "label pattern accepted example")

LONGEST = 255

# Replaces a bad answer in the command. No rule accepts its backslash.
CHANGE_ME = r"\CHANGE-ME"

LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
NAMESPACE = LABEL.replace("a-z", "A-Za-z")
DOMAIN = rf"(?:{LABEL}\.)+[a-z](?:[a-z0-9-]*[a-z0-9])?"
OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
IPV4 = rf"{OCTET}(?:\.{OCTET})" + "{3}"
HOST = rf"(?:{DOMAIN}|[a-z](?:[a-z0-9-]*[a-z0-9])?|{IPV4}|\[::1\])"
PORT = (
    r"(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}"
    r"|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
)
ORIGIN = rf"(?:https://{HOST}|http://(?:localhost|127\.0\.0\.1|\[::1\])){PORT}"
HTTPS = (
    "; http:// only for localhost, 127.0.0.1 and [::1];"
    " the host in lower case, and other scripts in their xn-- form"
)
OTHER_ROUTES = (
    "/(?:profile|sign-in|sign-up|sign-out|backchannel-logout|webhooks/logto|healthz|readyz)/?$"
    "|/(?:api|static)(?:/|$)"
)
PATH = rf"(?!{OTHER_ROUTES})(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._~-]+)+/?"
# This identifier is only compared, and never requested. RFC 8707 allows no fragment.
URI = "(?:[A-Za-z0-9._~:/?=+,-]|%[0-9A-Fa-f]{2})"
# The host of an identifier may have capitals.
API_HOST = HOST.replace("a-z", "A-Za-z")
API = f"https?://{API_HOST}{PORT}(?:[/?]{URI}*)?|(?!https?:)[A-Za-z][A-Za-z0-9+.-]*:{URI}+"
# Spaces except U+0020, invisible and bidirectional controls, surrogates, private use.
UNPRINTABLE = (
    r"\u0000-\u001f\u007f-\u00a0\u00ad\u061c\u1680\u180e\u2000-\u200b\u200e\u200f"
    r"\u2028-\u202f\u205f-\u206f\u3000\ud800-\uf8ff\ufeff\ufff0-\uffff"
)
GUID = "[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
ENTITY_NAME = "[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"

RULES = {
    "project_name": Rule(
        "Name of the app",
        r'(?![ \u200c\u200d])(?!.* $)(?!.*\{[%#\{])[^"\\' + UNPRINTABLE + "]{1,60}",
        "1 to 60 visible characters; no space at the start or the end, no double quote,"
        " no backslash, no two opening braces, no brace before % or #",
        "Bookstore",
    ),
    "project_slug": Rule(
        "Folder and package name",
        "(?!(?:" + ANSWERS.get("__reserved_slugs", "").replace(" ", "|") + ")$)"
        "(?=.{1,63}$)[a-z](?:-?[a-z0-9])*",
        "1 to 63 of a-z, 0-9 and single hyphens; a letter at the start, no hyphen at the end; not"
        " the name of a package that the project depends on, and not a name that Windows reserves",
        "bookstore",
    ),
    "framework": Rule("Web framework", "flask|quart", "flask or quart", "flask"),
    "logto_endpoint": Rule(
        "Logto endpoint",
        rf"{ORIGIN}/?",
        f"https://host[:port] with nothing after it{HTTPS}",
        "https://bookstore.logto.app",
    ),
    "logto_app_id": Rule(
        "App ID", "[A-Za-z0-9_-]{1,64}", "1 to 64 letters, digits, - and _", "bookstore"
    ),
    "callback_url": Rule(
        "Callback URL",
        ORIGIN + PATH,
        f"https://host[:port]/path, with another host or port than the Logto endpoint{HTTPS}; the"
        " path has letters, digits and . _ ~ -, and is not a path of the app, such as /sign-in",
        "https://bookstore.example/callback",
    ),
    "azure_tenant_id": Rule(
        "Microsoft Entra ID (Azure AD) tenant",
        f"common|organizations|consumers|{GUID}|" + DOMAIN.replace("a-z", "A-Za-z"),
        "common, organizations, consumers, a GUID, or a domain in ASCII",
        "contoso.onmicrosoft.com",
    ),
    "api_resource": Rule(
        "API identifier",
        f"(?:{API})?",
        "empty, or an absolute URI (https://..., api://..., urn:...) without a fragment; letters,"
        " digits and . _ ~ : / ? = + , - with all other characters in their %-form",
        "https://api.bookstore.example",
    ),
    "use_docker": Rule("Add a Dockerfile and compose.yaml", None, "true or false", "true"),
    "ci": Rule("Pipeline", "github|gitlab|none", "github, gitlab or none", "github"),
    "catalog_owner": Rule(
        "Owner in the Backstage catalog",
        rf"(?:(?:[A-Za-z][A-Za-z0-9]*:)?(?:{NAMESPACE}/)?{ENTITY_NAME})?",
        "empty, or [kind:][namespace/]name of a group or user in Backstage",
        "group:default/web",
    ),
}

# Cookiecutter computes these from the answers.
COMPUTED = (
    "__reserved_slugs",
    "__version",
    "__name_slug",
    "__framework",
    "__async",
    "__await",
    "__logto_endpoint",
    "__logto_resource",
    "__origin",
    "__callback_path",
    "__host",
    "__port",
    "__workflows",
    "__dependabot",
)

NEEDED = (
    "This template needs Cookiecutter 2.7 or newer. Run uvx cookiecutter, or upgrade with:"
    ' python -m pip install --upgrade "cookiecutter>=2.7"'
)


def rejected(answers: Mapping[str, object]) -> list[str]:
    """Return the names of the questions with bad answers, in the order of the prompts."""

    def good(name: str) -> bool:
        if not accepts(RULES[name], answers.get(name)):
            return False
        # The app and Logto cannot share one host and port, although each answer alone is good.
        endpoint = str(answers.get("logto_endpoint")).rstrip("/")
        return name != "callback_url" or not str(answers[name]).startswith(f"{endpoint}/")

    return [name for name in RULES if not good(name)]


def problem(answers: Mapping[str, object], bad: list[str]) -> str:
    """Return why no project can be made, or an empty text."""
    if missing := [name for name in (*RULES, *COMPUTED) if name not in answers]:
        return (
            f"No project was made, because a variable is missing: {', '.join(missing)}. A replay file"
            f" works only with the version of the template that wrote it. {NEEDED}"
        )
    if bad and all(comes_from_old_cookiecutter(name, answers[name]) for name in bad):
        name = bad[-1]
        return (
            f"No project was made, because {name} is the text {answers[name]!r} instead of true or"
            f" false. {NEEDED}"
        )
    return report(answers, bad) if bad else ""


def comes_from_old_cookiecutter(name: str, answer: object) -> bool:
    """Return whether Cookiecutter before 2.7 makes this value from a good answer."""
    # Before 2.2, Cookiecutter passes each boolean as a text; before 2.7, each of the command line.
    # Before 2.0, it also does not render __name_slug: the folder name is the expression's text.
    return isinstance(answer, str) and (
        RULES[name].pattern is None or "cookiecutter.project_name" in answer
    )


def accepts(rule: Rule, answer: object) -> bool:
    """Return whether an answer, which can have any type, follows its rule."""
    if rule.pattern is None:
        # The text "false", which a replay file can contain, would be true in a template.
        return isinstance(answer, bool)
    return (
        isinstance(answer, str)
        and len(answer) <= LONGEST
        and re.fullmatch(rule.pattern, answer) is not None
    )


def report(answers: Mapping[str, object], bad: list[str]) -> str:
    """Return a line for each bad answer, with what is accepted, and the command to run next."""
    lines = ["No project was made, because of these answers:", ""]
    for name in bad:
        label, _, accepted, example = RULES[name]
        answer = answers.get(name)
        if isinstance(answer, str) and len(answer) > 60:
            answer = answer[:60] + "..."
        # repr() shows control and invisible characters by their codes.
        lines.append(f"- {label} ({name}): {answer!r}. Accepted: {accepted}. Example: {example}")
        if comes_from_old_cookiecutter(name, answer):
            lines.append(f"  {NEEDED}")
    lines += ["", f"Replace {CHANGE_ME} with good answers, and run:", "", command(answers, bad)]
    lines += ["", "(You can ignore the messages of Cookiecutter below.)"]
    return "\n".join(lines)


def command(answers: Mapping[str, object], bad: list[str]) -> str:
    """Return the command that repeats this bake, with `CHANGE_ME` for each bad answer."""
    import os

    words = [*program(), str(answers.get("_template")), "--no-input"]
    if answers.get("_checkout"):
        words += ["--checkout", str(answers["_checkout"])]
    if answers.get("_output_dir") not in (None, os.environ.get("PWD")):
        words += ["--output-dir", str(answers["_output_dir"])]
    for name in RULES:
        # Cookiecutter also accepts Python's True, but users write true.
        answer = str(answers[name]).lower() if name == "use_docker" else answers.get(name)
        words.append(f"{name}={CHANGE_ME if name in bad else answer}")
    return " ".join(quoted(word, windows=os.name == "nt") for word in words)


def program() -> list[str]:
    """Return the words that start this Cookiecutter, as far as the environment shows them."""
    import os

    # uvx creates an environment in its cache, and sets UV for the programs that it starts.
    if os.environ.get("UV") and re.search(r"[/\\](archive|environments)-v\d+[/\\]", sys.prefix):
        return ["uvx", "cookiecutter"]
    return ["cookiecutter"]


def wrapped(text: str) -> str:
    """Wrap the lines of a message for the terminal, but not the command, which users copy."""
    import os
    import textwrap

    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (AttributeError, OSError, ValueError):
        return text  # A pipe or a file has no width.
    command = " ".join(program())
    return "\n".join(
        line
        if line.startswith(f"{command} ") or not line
        else textwrap.fill(
            line, columns, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        for line in text.split("\n")
    )


def quoted(word: str, *, windows: bool) -> str:
    """Quote a word for a POSIX shell, or for cmd and PowerShell."""
    import shlex

    if not windows or re.fullmatch(r"[A-Za-z0-9_=:/.~\\-]+", word):
        return word if windows else shlex.quote(word)
    if not re.search("[$`%\u201c-\u201e]", word):
        return f'"{word}"'
    # Only PowerShell can quote these characters, in single quotes. It also reads
    # typographic apostrophes as single quotes.
    return "'" + re.sub("(['\u2018-\u201b])", r"\1\1", word) + "'"


if __name__ == "__main__":
    if why := problem(ANSWERS, rejected(ANSWERS)):
        sys.exit(wrapped(why))
