"""What the local Logto knows: users, applications, sign-ins and tokens.

A restart forgets everything except the users below, whose IDs are fixed.
"""

import logging
import re
import secrets
import string
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

import httpx2
from joserfc import jwt
from joserfc.jwk import ECKey

FACTORY = "azuread-universal"
SIMULATED_AZURE = {
    "clientId": "simulated",
    "clientSecret": "simulated",
    "tenantId": "common",
    "cloudInstance": "https://login.microsoftonline.com/",
}
LOGOUT_TOKEN_LIFETIME = 120

log = logging.getLogger("local_logto")


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
    people = (alice, bob, carol, misaki)
    # Logto takes the e-mail from Microsoft's `mail`, which is null for an account without
    # a mailbox.
    microsoft = User("x2f6g9b5v0ms", "Mika Salo", permissions=["read:*"])
    return {str(user.username): user for user in people} | {"microsoft": microsoft}


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


@dataclass(eq=False)
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


class StandIn:
    """Everything that the local Logto knows. `resources` maps each API resource to its scopes.

    Lifetimes are in seconds. The Management API changes it while it runs; `machine_app_id` is the
    application for that. For tests, `requests` has the method and path of all requests, and
    `issued` has every code and token.
    """

    endpoint: str
    issuer: str

    def __init__(
        self,
        *,
        app_id: str,
        redirect_uris: Sequence[str] = (),
        post_logout_redirect_uris: Sequence[str] = (),
        backchannel_logout_uri: str | None = None,
        resources: Mapping[str, Sequence[str]] | None = None,
        access_token_lifetime: int = 3600,
        rotate_refresh_tokens: bool = False,
        machine_app_id: str = "local-m2m",
    ) -> None:
        self.application = Application(app_id, app_id, [*redirect_uris])
        self.application.post_logout_redirect_uris = [*post_logout_redirect_uris]
        self.application.backchannel_logout_uri = backchannel_logout_uri
        self.application.backchannel_logout_session_required = backchannel_logout_uri is not None
        self.machine = Application(machine_app_id, "Provisioning", type="MachineToMachine")
        self.applications = {machine_app_id: self.machine, app_id: self.application}
        self.users = example_users()
        self.resources = dict(resources or ())
        self.own_resource: str | None = None
        self.connectors: list[dict[str, Any]] = [
            {"id": "azuread", "connectorId": FACTORY, "config": dict(SIMULATED_AZURE)}
        ]
        self.sign_in_experience: dict[str, Any] = {
            "signInMode": "SignInAndRegister",
            "signIn": {"methods": [{"identifier": "username", "password": True}]},
            "signUp": {"identifiers": ["username"], "password": True, "verify": False},
            "socialSignInConnectorTargets": ["azuread"],
        }
        self.access_token_lifetime = access_token_lifetime
        self.rotate_refresh_tokens = rotate_refresh_tokens
        self.sessions: dict[str, Session] = {}
        self.interactions: dict[str, Interaction] = {}
        self.grants: list[Grant] = []
        self.codes: dict[str, Credential] = {}
        self.refresh_tokens: dict[str, Credential] = {}
        self.access_tokens: dict[str, Credential] = {}
        self.issued: list[str] = []
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.RLock()
        self.key = ECKey.generate_key("P-384", {"use": "sig", "alg": "ES384"}, auto_kid=True)

    @property
    def offers_microsoft(self) -> bool:
        """Whether the sign-in page has the button: a connector, and its target enabled."""
        enabled = "azuread" in self.sign_in_experience["socialSignInConnectorTargets"]
        return enabled and bool(self.connectors)

    def clear(self) -> None:
        """Forget all that an administrator enters, as in a Logto that is just installed."""
        self.application.redirect_uris = []
        self.application.post_logout_redirect_uris = []
        self.application.backchannel_logout_uri = None
        self.application.backchannel_logout_session_required = False
        self.connectors.clear()
        self.resources.clear()
        self.sign_in_experience["socialSignInConnectorTargets"] = []

    @property
    def scopes(self) -> list[str]:
        """The scopes of all API resources; an organization can grant each of them too."""
        return [scope for scopes in self.resources.values() for scope in scopes]

    def suspend(self, username: str) -> None:
        """Suspend a user, who loses all sessions and tokens. The app gets no message."""
        with self.lock:
            user = self.users[username]
            user.suspended = True
            for key in [key for key, session in self.sessions.items() if session.user is user]:
                del self.sessions[key]
            for grant in self.grants:
                grant.revoked = grant.revoked or grant.user is user

    def end_session(self, key: str) -> None:
        """Sign a browser out and tell its applications (Back-Channel Logout 1.0).

        Takes the value of its `_session` cookie. As in Logto, refresh tokens with
        `offline_access` outlive the session.
        """
        with self.lock:
            session = self.sessions.pop(key)
            ended = [grant for grant in self.grants if grant.session is session]
            for grant in ended:
                grant.revoked = grant.revoked or "offline_access" not in grant.interaction.scopes
        for application in {grant.interaction.application for grant in ended}:
            call = (application, application.backchannel_logout_uri, session)
            if application.backchannel_logout_uri:
                threading.Thread(target=self._send_logout_token, args=call, daemon=True).start()

    def _send_logout_token(self, application: Application, uri: str, session: Session) -> None:
        # The real Logto drops calls to loopback addresses and reports nothing.
        claims: dict[str, Any] = {
            "sub": session.user.id,
            "aud": application.id,
            "jti": random_id(21),
            "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
        }
        if application.backchannel_logout_session_required:
            claims["sid"] = session.sid
        token = self.sign(claims, LOGOUT_TOKEN_LIFETIME, "logout+jwt")
        try:
            form = {"logout_token": token}
            response = httpx2.post(uri, data=form, timeout=5, trust_env=False)
            log.info("Back-channel logout: the app responded with %s", response.status_code)
        except httpx2.HTTPError as error:
            log.warning("Back-channel logout: %s cannot be reached (%s)", uri, error)

    def sign(self, claims: dict[str, Any], lifetime: int, typ: str | None) -> str:
        """Return the claims with `iss`, `iat` and `exp` as a JWT of `lifetime` seconds."""
        now = int(time.time())
        header = {"alg": "ES384", "kid": self.key.kid}
        if typ:
            header["typ"] = typ
        claims = {**claims, "iss": self.issuer, "iat": now, "exp": now + lifetime}
        token = jwt.encode(header, claims, self.key, algorithms=["ES384"], default_type=None)
        self.issued.append(token)
        return token

    def issue(
        self, store: dict[str, Credential], grant: Grant, scopes: list[str], lifetime: float
    ) -> str:
        """Return a new opaque credential (43 characters) and remember it in `store`."""
        value = secrets.token_urlsafe(32)
        store[value] = Credential(grant, scopes, lifetime)
        self.issued.append(value)
        return value
