"""The OpenAPI document: what FastAPI knows of its routes, the doors in front of it, and what can go wrong at each."""

from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse

from keywright.errors import CODES
from keywright.server.hot import ANYBODY
from keywright.server.question import BatchBody, VerifyBody

_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "title": "Problem",
    "description": "An error, after RFC 9457.",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "description": "urn:keywright:problem: and the code"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what happened, and what to do"},
        "instance": {"type": "string"},
        "code": {"type": "string", "enum": [code for code in CODES if code != "ok"]},
        "request_id": {"type": "string", "description": "keywright why REQUEST_ID says the real reason"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"path": {"type": "string"}, "reason": {"type": "string"}},
            },
        },
    },
}
_PROPAGATION: Final[dict[str, Any]] = {
    "type": "object",
    "title": "Propagation",
    "description": (
        "How far a change has travelled when it is answered. On SQLite it is exact, always, and there is no more to say. On "
        "PostgreSQL a change is answered when every worker has confirmed it, or after about a second."
    ),
    "required": ["exact"],
    "properties": {
        "exact": {
            "type": "boolean",
            "description": "nobody answers from the state before the change any more",
        },
        "workers": {"type": "integer", "description": "how many processes answer from memory"},
        "confirmed": {
            "type": "integer",
            "description": "how many of them have said that they know the change",
        },
        "complete_by": {
            "type": "string",
            "format": "date-time",
            "description": (
                "from then on nobody answers from the state before the change. Where it is not exact, that is to come: a "
                "worker that does not confirm is cut off, and may serve what it remembers, marked stale, until then"
            ),
        },
    },
}
_SAYS: Final = {
    400: "The body is not acceptable JSON, or the gateway did not say what was asked.",
    401: "No management key, or none that is valid.",
    403: "The key lacks the scope that is asked, or what would be granted.",
    404: "There is no such thing, or it is not the caller's.",
    409: "The thing is not in a state for this.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    422: "A field or a parameter is not acceptable; errors name it.",
    429: "A limit of the key is used up for now, or too many attempts to prove who one is have failed, or were made.",
    503: "The store does not answer; try again.",
}
_ANY: Final = {"application/json": {"schema": {"type": "object"}}}
_TEXT: Final = {"text/plain": {"schema": {"type": "string"}}}


def _open(summary: str, content: dict[str, Any], *errors: int, **more: Any) -> dict[str, Any]:
    answers = {"200": {"description": "Successful Response", "content": content}}
    answers |= {str(status): _error(status) for status in errors}
    return {"summary": summary, "responses": answers, "security": [], **more}


def _error(status: int) -> dict[str, Any]:
    reference = {"$ref": "#/components/schemas/Problem"}
    return {"description": _SAYS[status], "content": {"application/problem+json": {"schema": reference}}}


def _named(name: str, says: str) -> list[dict[str, Any]]:
    schema = {"type": "string"}
    return [{"name": name, "in": "path", "required": True, "description": says, "schema": schema}]


def _takes(body: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{body}"}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


_ASK: Final[dict[str, Any]] = {
    "name": "ask",
    "in": "query",
    "required": False,
    "description": "Words to look for: the answer holds the paragraphs that fit, and nothing that is not in the pages.",
    "schema": {"type": "string", "maxLength": 200},
}
#: Where too many attempts, or reports, are turned away.
_GUARDED: Final = ("/v1/session", "/v1/leaks", "/v1/revoke_tokens")
_KEY: Final[list[dict[str, list[str]]]] = [{"customerKey": []}]


def _door(summary: str, *more: dict[str, Any]) -> dict[str, Any]:
    """A door of forward-auth."""
    gate = _named("gate", "A named gate, or {keyspace}.{environment}.")
    errors = (400, 401, 403, 404, 429, 503)
    said = _open(summary, {}, *errors, parameters=[*gate, *more], tags=["verify"])
    return {"get": said | {"security": _KEY}}


_BODY_ERRORS: Final = (400, 401, 403, 404, 413, 415, 422, 503)
_PLACE: Final = _named("place", "A keyspace and an environment, {keyspace}.{environment}.")
#: The doors in front of FastAPI, and the pages for everybody.
FRONT: Final[dict[str, dict[str, Any]]] = {
    "/v1/verify": {
        "post": _open(
            "Verify a credential", _ANY, *_BODY_ERRORS, requestBody=_takes("VerifyBody"), tags=["verify"]
        )
        | {"security": [{"managementKey": []}]}
    },
    "/v1/verify/batch": {
        "post": _open(
            "Verify up to 100 credentials",
            _ANY,
            *_BODY_ERRORS,
            requestBody=_takes("BatchBody"),
            tags=["verify"],
        )
        | {"security": [{"managementKey": []}]}
    },
    "/authz/forward/{gate}": _door("Say to a proxy, by any method, whether it may forward a request"),
    "/authz/nginx/{gate}": _door("Say so to nginx's auth_request, to which 400 and 429 are 403"),
    "/authz/accel/{gate}": _door("Say so to nginx, and lead it on with X-Accel-Redirect"),
    "/authz/envoy/{gate}/{target}": _door(
        "Say so to Envoy's ext_authz, of the method and the target that it asks with",
        *_named("target", "The path of the request that is held back, with its query."),
    ),
    "/k/{place}/whoami": {
        "get": _open("Who am I?", _ANY, 401, 403, 404, 503, parameters=_PLACE, tags=["self-service"])
        | {"security": _KEY}
    },
    "/livez": {"get": _open("Does the process answer?", _ANY, tags=["health"])},
    "/readyz": {"get": _open("Can it verify?", _ANY, 503, tags=["health"])},
    "/metrics": {
        "get": _open(
            "What the server does, in Prometheus' format", _TEXT, 401, 403, 404, 503, tags=["health"]
        )
        | {"security": [{"managementKey": []}]}
    },
    "/openapi.json": {"get": _open("This document", _ANY, tags=["documentation"])},
    "/docs": {
        "get": _open(
            "These operations, in a browser",
            {"text/html": {"schema": {"type": "string"}}} | _TEXT,
            tags=["documentation"],
        )
    },
    "/docs/{page}": {
        "get": _open(
            "A page; with .md behind its name, as text/markdown",
            _TEXT | {"text/markdown": {"schema": {"type": "string"}}},
            404,
            422,
            parameters=[*_named("page", "Its name."), _ASK],
            tags=["documentation"],
        )
    },
    "/llms.txt": {"get": _open("The index of the pages", _TEXT, tags=["documentation"])},
    "/llms-full.txt": {"get": _open("Every page", _TEXT, tags=["documentation"])},
    "/.well-known/security.txt": {
        "get": _open("Whom to tell of a weakness", _TEXT, 404, tags=["documentation"])
    },
}


_OWN: Final = {"Problem": _PROBLEM, "Propagation": _PROPAGATION}


class Described(FastAPI):
    """FastAPI with a whole description of what stands on its port. It is made, and spelled, in a thread."""

    def setup(self) -> None:
        """Offer the document: FastAPI's own way would hold up the event loop for as long as it takes to make it."""
        self.add_route("/openapi.json", self._say, include_in_schema=False)

    def _say(self, _request: Request) -> JSONResponse:
        return JSONResponse(self.openapi())

    def openapi(self) -> dict[str, Any]:
        """The document; made once."""
        if self.openapi_schema is None:
            self.openapi_schema = _describe(
                get_openapi(title=self.title, version=self.version, summary=self.summary, routes=self.routes)
            )
        return self.openapi_schema


def _describe(document: dict[str, Any]) -> dict[str, Any]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            statuses = {401, 403, 422, 503} | ({404} if "{" in path or _narrows(operation) else set())
            if method in ("post", "patch", "delete"):
                statuses |= {404, 409}
            if "requestBody" in operation:
                statuses |= {400, 413, 415} | ({429} if path.startswith(_GUARDED) else set())
            operation["responses"] = {
                status: answer for status, answer in operation["responses"].items() if status[0] == "2"
            } | {str(status): _error(status) for status in sorted(statuses)}
            operation["security"] = _security(method, path)
            if _changes(method, path):
                _answers(operation)["properties"] = {
                    "propagation": {"$ref": "#/components/schemas/Propagation"}
                }
    document["paths"] |= FRONT
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    _, hot = msgspec.json.schema_components(
        [VerifyBody, BatchBody], ref_template="#/components/schemas/{name}"
    )
    components["schemas"] = dict(sorted((schemas | hot | _OWN).items()))
    components["securitySchemes"] = {
        "managementKey": {"type": "http", "scheme": "bearer", "description": "A management key."},
        "session": {
            "type": "apiKey",
            "in": "cookie",
            "name": "keywright-session",
            "description": "A person signed in; over HTTPS the cookie is __Host-keywright. Changes need X-CSRF-Token.",
        },
        "customerKey": {
            "type": "http",
            "scheme": "bearer",
            "description": "A customer's key, in any scheme that its keyspace accepts; Bearer is one.",
        },
    }
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(document))
    return plain


def _security(method: str, path: str) -> list[dict[str, list[str]]]:
    if (method.upper(), path) in ANYBODY:
        return []
    return [{"session": []}] if path.startswith("/v1/session") else [{"managementKey": []}, {"session": []}]


def _changes(method: str, path: str) -> bool:
    """Whether a route changes what verifications rest on."""
    travels = path.startswith(("/v1/keys", "/v1/management-keys", "/v1/accounts/"))
    return travels and method in ("post", "patch", "delete")


def _answers(operation: dict[str, Any]) -> dict[str, Any]:
    """The schema of what an operation answers with."""
    answer = next(answer for status, answer in operation["responses"].items() if status[0] == "2")
    schema: dict[str, Any] = answer["content"]["application/json"]["schema"]
    return schema


def _narrows(operation: dict[str, Any]) -> bool:
    """Whether a list is narrowed to things that may be another's."""
    names = {parameter["name"] for parameter in operation.get("parameters", ())}
    return bool(names & {"keyspace", "account", "environment", "key"})


__all__ = ["FRONT", "Described"]
