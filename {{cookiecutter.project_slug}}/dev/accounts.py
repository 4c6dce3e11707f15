"""What the local Logto remembers: people, applications, and who allowed what to whom.

A restart forgets everything but the people below, whose ids are fixed.
"""

import re
import secrets
import string
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch


def random_id(length: int = 12) -> str:
    """Return an id in the form of Logto's: lower-case letters and digits."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(length))


@dataclass
class User:
    """A person who can sign in.

    `permissions` are patterns over the scopes of API resources (`read:*`), `organizations`
    maps an organization's id to such patterns. Times are milliseconds since 1970, as in
    Logto. A person from Microsoft has no `username`.
    """

    id: str
    name: str
    username: str | None = None
    email: str | None = None
    has_picture: bool = False
    permissions: Sequence[str] = ()
    organizations: Mapping[str, Sequence[str]] = field(default_factory=dict)
    suspended: bool = False
    created_at: int = 1767225600000
    updated_at: int = 1767225600000

    def allowed(self, scopes: Iterable[str], organization: str | None = None) -> list[str]:
        """Return those scopes that this person has, in the organization if one is given."""
        patterns = self.organizations[organization] if organization else self.permissions
        return [scope for scope in scopes if any(fnmatch(scope, item) for item in patterns)]


def example_users() -> dict[str, User]:
    """Return the people of a fresh stand-in, by username."""
    alice = User("k3v9x0q2m7ae", "Alice Archer", "alice", "alice@example.com", has_picture=True)
    alice.permissions = ["*"]
    alice.organizations = {"bookclub0001": ["*"]}
    bob = User("p8d2w5t1z6bo", "Bob Baker", "bob", "bob@example.com", permissions=["read:*"])
    bob.organizations = {"bookclub0001": ["read:*"]}
    carol = User("c4r7j1n9y3ol", "Carol Chen", "carol", has_picture=True, permissions=["read:*"])
    misaki = User("m6s1k8u4h2ya", "山田 美咲", "misaki", "misaki@example.com", has_picture=True)
    # Logto takes the e-mail from Microsoft's `mail`, which is null for an account without
    # a mailbox.
    microsoft = User("x2f6g9b5v0ms", "Mika Salo", permissions=["read:*"])
    return {
        "alice": alice,
        "bob": bob,
        "carol": carol,
        "misaki": misaki,
        "microsoft": microsoft,
    }


def new_user(name: str, email: str, taken: Mapping[str, User]) -> User:
    """Return a person who has just registered, under a username that is not taken."""
    base = re.sub(r"\W+", "_", name.lower(), flags=re.ASCII).strip("_") or "user"
    username = base
    while username in taken:
        username = f"{base}_{random_id(4)}"
    user = User(random_id(), name[:128], username, email[:128] or None, has_picture=True)
    user.permissions = ["read:*"]
    user.created_at = user.updated_at = int(time.time() * 1000)
    return user


@dataclass
class Application:
    """An application as registered in the Logto Console."""

    id: str
    name: str
    redirect_uris: list[str] = field(default_factory=list)
    post_logout_redirect_uris: list[str] = field(default_factory=list)
    backchannel_logout_uri: str | None = None
    backchannel_logout_session_required: bool = False
    type: str = "Traditional"


@dataclass
class Session:
    """A browser that is signed in to Logto, known by its `_session` cookie."""

    user: User
    sid: str = field(default_factory=lambda: random_id(21))


@dataclass
class Interaction:
    """A sign-in under way: what the app asked for at `/oidc/auth`."""

    application: Application
    redirect_uri: str
    state: str | None
    nonce: str | None
    scopes: list[str]
    resources: list[str]
    code_challenge: str
    login_hint: str
    ui_locales: str
    id: str = field(default_factory=lambda: random_id(21))


@dataclass
class Grant:
    """What a finished sign-in allows the app. Once revoked, its tokens work no more."""

    interaction: Interaction
    session: Session
    revoked: bool = False

    @property
    def user(self) -> User:
        return self.session.user


@dataclass
class Credential:
    """What a code, a refresh token or an opaque access token stands for; times in seconds."""

    grant: Grant
    scopes: list[str]
    lifetime: float
    issued_at: float = field(default_factory=time.time)
    used_at: float | None = None

    @property
    def usable(self) -> bool:
        return not self.grant.revoked and time.time() < self.issued_at + self.lifetime
