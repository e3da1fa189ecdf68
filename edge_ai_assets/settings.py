"""Settings from the environment (`EDGE_AI_*`). Nothing else reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from edge_ai_assets import usecase as usecases
from edge_ai_assets.home import Home


class Settings(BaseSettings):
    """See the module; each field is the environment variable `EDGE_AI_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="EDGE_AI_", env_ignore_empty=True, frozen=True)

    home: Path = Field(Path(".edge-ai"), description="The one folder that holds everything local.")
    usecase: Path | None = Field(
        None, description="Use case file; the home's own, or the pump station, when absent."
    )

    @classmethod
    def load(cls) -> Self:
        return cls()

    def folders(self) -> Home:
        return Home(self.home.absolute())

    def load_usecase(self) -> usecases.UseCase:
        """Raises `UseCaseError` for a file that cannot be used."""
        own = self.folders().usecase
        return usecases.load(
            self.usecase or (own if own.exists() else usecases.BUNDLED / "pump-station.yaml")
        )
