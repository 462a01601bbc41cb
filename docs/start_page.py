"""The start page of the site: the README, whose links are those of the folder it lies in."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def on_files(files: Any, config: Any) -> Any:
    """Add the README to the pages as `index.md`."""
    from mkdocs.structure.files import File

    readme = Path(config.config_file_path).parent / "README.md"
    text = readme.read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=text))
    return files
