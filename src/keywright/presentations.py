"""How to send a credential that was just made: for every scheme of its keyspace, ready to paste. Pure."""

import json
from base64 import b64encode
from typing import NamedTuple

from keywright.credential import Secret
from keywright.model import MANAGEMENT, Credential, Key, Keyspace


class Presentation(NamedTuple):
    """One way to send a credential."""

    scheme: str
    headers: dict[str, str]
    curl: str
    python: str
    node: str


def example_url(keyspace: Keyspace, key: Key, base_url: str) -> str:
    """Where an example sends its request: the host's own address, or else where this server answers who the key is."""
    if key.keyspace == MANAGEMENT:
        return f"{base_url}/v1/keys"
    return _where(keyspace, key.environment, base_url)


def _where(keyspace: Keyspace, environment: str, base_url: str) -> str:
    return keyspace.url or f"{base_url}/k/{keyspace.name}.{environment}/whoami"


def before_the_first(keyspace: Keyspace, account: str, environment: str, base_url: str) -> str:
    """A request as it will be sent with a key that nobody has made yet: words stand where its parts will."""
    words = Credential("YOUR_KEY_ID", Secret("YOUR_SECRET"), Secret("YOUR_TOKEN"))
    headers = _headers(keyspace.schemes[0], keyspace, words, account)[0]
    if keyspace.schemes[0] == "basic":  # what is to be written there is made of both
        return f"curl -u {words.id}:YOUR_SECRET {_where(keyspace, environment, base_url)}"
    return curl(headers, _where(keyspace, environment, base_url))


def presentations(keyspace: Keyspace, credential: Credential, account: str, url: str) -> list[Presentation]:
    """Every way that the keyspace accepts, in the profile's order. The values are the real ones."""
    shown = []
    for scheme in keyspace.schemes:
        for headers in _headers(scheme, keyspace, credential, account):
            shown.append(
                Presentation(scheme, headers, curl(headers, url), python(headers, url), node(headers, url))
            )
    return shown


def _headers(scheme: str, keyspace: Keyspace, credential: Credential, account: str) -> list[dict[str, str]]:
    key_id, token = credential.id, credential.token.reveal()
    secret = credential.secret.reveal() if credential.secret is not None else ""
    match scheme:
        case "bearer":
            return [{"Authorization": f"Bearer {token}"}]
        case "basic":
            return [{"Authorization": "Basic " + b64encode(f"{key_id}:{secret}".encode()).decode()}]
        case "key_secret":
            return [{"X-API-KEY": key_id, "X-API-SECRET": secret}]
        case "camel_pair":
            return [{"apiKey": key_id, "apiSecret": secret}]
        case "key_user":
            return [{"x-api-key": token, "x-api-user": account}]
        case "api_key_auth":
            return [{"Authorization": f"Api-Key {token}"}, {"Api-Key": token}]
        case _:
            return [{keyspace.header: token}]


def curl(headers: dict[str, str], url: str, method: str = "GET") -> str:
    """A curl command on one line. No value that we make holds a quote."""
    verb = "" if method == "GET" else f" -X {method}"
    return f"curl{verb} " + "".join(f"-H '{name}: {value}' " for name, value in headers.items()) + f"'{url}'"


def python(headers: dict[str, str], url: str) -> str:
    """A Python program that uses ``requests``."""
    shown = json.dumps(headers, indent=4)
    return f"import requests\n\nresponse = requests.get(\n    {json.dumps(url)},\n    headers={_indent(shown)},\n)\nprint(response.json())\n"


def node(headers: dict[str, str], url: str) -> str:
    """A Node.js program that uses the global ``fetch``."""
    shown = _indent(json.dumps(headers, indent=2), "  ")
    return f"const response = await fetch({json.dumps(url)}, {{\n  headers: {shown},\n}});\nconsole.log(await response.json());\n"


def _indent(text: str, by: str = "    ") -> str:
    first, *rest = text.split("\n")
    return "\n".join([first, *(by + line for line in rest)])
