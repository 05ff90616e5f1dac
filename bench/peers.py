"""Two other packages from PyPI, verifying one key in process by their own API, in a throw-away environment beside ours.

The environment is kept between runs. Where PyPI cannot be reached the rows are missing, and a line says so.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from figure import Figure

WANTED = {
    "djangorestframework-api-key": ["djangorestframework-api-key==3.1.0", "djangorestframework==3.18.3"],
    "keyshield": ["keyshield[argon2,sqlalchemy,aiocache]==2.0.1", "aiosqlite"],
}
_TIMED = """
import time
def told(times, function):
    began = time.process_time()
    for _ in range(times):
        function()
    print((time.process_time() - began) / times * 1e6)
"""
_DJANGO = """
import django
from django.conf import settings
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["rest_framework", "rest_framework_api_key"],
)
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from rest_framework_api_key.models import APIKey
_, key = APIKey.objects.create_key(name="bench")
assert APIKey.objects.is_valid(key) and not APIKey.objects.is_valid(key[:-1] + "!")
told(1000, lambda: APIKey.objects.is_valid(key))
"""
_KEYSHIELD = """
import asyncio
from keyshield.hasher.argon2 import Argon2ApiKeyHasher
from keyshield.repositories.in_memory import InMemoryApiKeyRepository
from keyshield.services.cached import CachedApiKeyService

async def main():
    service = CachedApiKeyService(repo=InMemoryApiKeyRepository(), hasher=Argon2ApiKeyHasher(pepper="bench" * 8))
    _, key = await service.create(name="bench")
    await service.verify_key(key)
    began = time.process_time()
    for _ in range(40):
        await service.verify_key(key)
    print((time.process_time() - began) / 40 * 1e6)

asyncio.run(main())
"""
ROWS = [
    (
        "djangorestframework-api-key 3.1.0, is_valid, SQLite in memory",
        "djangorestframework-api-key",
        _TIMED + _DJANGO,
    ),
    ("keyshield 2.0.1, verify_key from its cache, store in memory", "keyshield", _TIMED + _KEYSHIELD),
]


def figures() -> tuple[list[Figure], list[str]]:
    """Their figures, and what is to be said where one is missing."""
    found, missing = [], []
    for name, package, program in ROWS:
        python = _environment(package)
        if python is None:
            missing.append(f"{package} could not be installed from PyPI: its row is missing.")
            continue
        said = [
            subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
            for _ in range(3)
        ]
        if any(one.returncode for one in said):
            missing.append(f"{package} did not run: {said[0].stderr.strip().splitlines()[-1:]}")
            continue
        found.append(Figure(name, sorted(float(one.stdout) for one in said)[1], "µs", None, None))
    return found, missing


def _environment(package: str) -> Path | None:
    place = Path(tempfile.gettempdir()) / f"keywright-bench-{os.getuid()}" / package
    python, ready = place / "bin" / "python", place / "ready"
    if not ready.exists():
        place.parent.mkdir(mode=0o700, exist_ok=True)
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=False).returncode
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *WANTED[package]]
        if made or subprocess.run(install, stderr=subprocess.DEVNULL, timeout=120, check=False).returncode:
            return None
        ready.touch()
    return python
