"""What the wheel holds besides the package: the documentation's text, which the server shows. Its pictures stay here."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Documentation(BuildHookInterface[Any]):
    """Adds the pages."""

    def initialize(self, _version: str, build_data: dict[str, Any]) -> None:
        """Name each page, and where it goes."""
        root = Path(self.root)
        for page in sorted((root / "docs").glob("*.md")):
            build_data["force_include"][str(page)] = f"keywright/docs/{page.name}"
