"""For each question: answers that the pre_gen hook accepts, and answers that it rejects."""

from typing import Any

LONG_LABEL = "a" * 63
GUID = "72F988BF-86f1-41af-91ab-2d7cd011db47"

ACCEPTED: dict[str, list[Any]] = {
    "project_name": [
        "B", "x" * 60, "Ada's Books & Maps", "<b>Shop</b>", "a }} b", "100 % {real}", "$(id) `id`",
        "Книги", "本屋", "مكتبة", "ספרים", "دل\u200cتنگ", "e\u0301t\u00e9", "📚", "👩\u200d👩\u200d👧", "'; DROP TABLE users",
        "../..", "/etc/passwd", "#1", "- list", "a: b", "%PATH%", "true", "42",
    ],
    "project_slug": ["b", "book-store-2", LONG_LABEL, "class", "json", "app", "tests", "con1"],
    "framework": ["flask", "quart"],
    "logto_endpoint": [
        "http://localhost:3001", "http://127.0.0.1:1", "http://[::1]:65535", "http://localhost/",
        "https://bookstore.logto.app", "https://bookstore.logto.app/", "https://10.0.0.7:8443",
        "https://xn--bcher-kva.example", "https://logto", f"https://{LONG_LABEL}.example",
    ],
    "logto_app_id": ["a", "A-b_9", "x" * 64, "123"],
    "callback_url": [
        "https://a.example/callback", "https://a.example/auth/logto/callback",
        "http://[::1]:3000/callback", "http://127.0.0.1:3000/cb", "https://a.example/c.b_a~1-",
        "https://a.example/sign-in/done", "https://a.example/apis", "https://a.example/...",
        "https://a.example/callback/",
    ],
    "azure_tenant_id": [
        "common", "organizations", "consumers", GUID, "contoso.onmicrosoft.com", "a.example",
        "Contoso.onmicrosoft.com",
    ],
    "api_resource": [
        "", "https://api.example", "https://api.example/", "https://api.example:8443/v1/books",
        "http://localhost:3000/api", "urn:books:api", "urn:logto:resource:books/1",
        "http://a.example", "https://API.a.example", "api://books", "https://a.example/x?y=1",
        "https://a.example/a:b/c%20d", "urn:books",
    ],
    "use_docker": [True, False],
    "ci": ["github", "gitlab", "none"],
    "catalog_owner": [
        "", "web", "group:web", "user:default/ada.b", "default/web", "Group:Default/Web_Team",
    ],
}  # fmt: skip

NOT_TEXT: list[Any] = [None, 7, {"a": "table"}, ["a", "list"]]
NEVER = [
    "\0", "a\nb", "a\tb", "a\n", "\x1b[31m", "\u202eevil", "x" * 10_000, "\\CHANGE-ME", "\ud800",
    "{{ 7*7 }}", "{% raw %}", '"""', "\\",
]  # fmt: skip
NEVER_BUT_IN_NAMES = [
    "..", "../../etc", "/etc/passwd", "C:\\Windows", "$(id)", "`id`", "%PATH%", "'; DROP TABLE",
    "javascript:alert(1)", "two words", " lead", "trail ", "a\u00a0b", "é", "📚", "a<b>", "#", "?",
]  # fmt: skip

REJECTED: dict[str, list[Any]] = {
    "project_name": [
        "", " ", " Bookstore", "Bookstore ", "Book\u00a0store", "x" * 61, 'The "Best"', "{# note #}",
        "a{{b", "zero\u200bwidth", "\u200c", "\ufeffBom", "\ue000", "line\u2028break", True,
    ],
    "project_slug": [
        "", "Bookstore", "3d", "-a", "a-", "a--b", "a_b", "a.b", LONG_LABEL + "a", "con", "nul", "lpt9",
        "flask", "quart", "logto", "pytest", "a/b", True,
    ],
    "framework": ["", "django", "Flask", True],
    "logto_endpoint": [
        "", "localhost:3001", "http://logto.example", "https://", "https://bücher.example",
        "https://a.example/oidc", "https://a.example//", "https://a.example?x", "https://a.example#x",
        "https://user@a.example", "https://u:p@a.example", "https://a.example:0",
        "https://a.example:65536", "https://a.example:080", "https://a.example:", "HTTPS://a.example",
        "https://A.example", "https://1.2.3", "https://1.2.3.256", "https://[::1", "http://[::2]",
        "https://-a.example", f"https://{LONG_LABEL}a.example", "https://a..example",
        "http://localhost.evil.example", "http://127.0.0.1.evil.example", "ftp://localhost", True,
    ],
    "logto_app_id": ["", "a.b", "x" * 65, True],
    "callback_url": [
        "", "/callback", "https://a.example", "https://a.example/", "https://a.example/callback//", "https://a.example/profile/",
        "https://a.example//callback", "https://a.example/a//b", "https://a.example/../callback",
        "https://a.example/a/./b", "https://a.example/a/..", "https://a.example/callback?x=1",
        "https://a.example/callback#x", "https://a.example/<path:x>", "https://a.example/%63",
        "https://u:p@a.example/callback", "http://a.example/callback", "https://a.example:0/callback",
        "https://a.example/profile", "https://a.example/sign-in", "https://a.example/sign-up",
        "https://a.example/sign-out", "https://a.example/backchannel-logout",
        "https://a.example/webhooks/logto",
        "https://a.example/healthz", "https://a.example/readyz", "https://a.example/api",
        "https://a.example/api/me", "https://a.example/static", "https://a.example/static/x",
        "http://localhost:3001/callback", "https://bücher.example/callback", True,
        "https://a.example/" + "c" * 250,
    ],
    "azure_tenant_id": ["", "Common", "contoso", GUID[:-1], GUID + "0", "-a.example", "a.1", True],
    "api_resource": [
        "api", "/api", "https://a.example/x#y", "https://a.example/x y", "https://a.example/x&y",
        "https://", "https:a.example", "https://a.example:0", "https://a.example/%2", "urn:",
        "urn:books:" + "x" * 250, "mailto:a@b.example", "https://u@a.example", True,
    ],
    "use_docker": ["true", "false", "yes", "", 1],
    "ci": ["", "jenkins", True],
    "catalog_owner": [
        "group:", "/web", "default/", "a/b/c", "group:default:web", "-web", "web-", "9kind:web",
        "group:-default/web", "x" * 64, True,
    ],
}  # fmt: skip
for _question, _answers in REJECTED.items():
    _answers += NOT_TEXT + NEVER + (NEVER_BUT_IN_NAMES if _question != "project_name" else [])
