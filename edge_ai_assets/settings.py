"""Settings: the environment (`EDGE_AI_*`), and the two profiles in the home. Nothing else reads them.

`<home>/azure.toml` is Azure's side, `<home>/stack_hub.toml` a site's; both may be absent. Any field of theirs
can be given by the environment, which comes first: `EDGE_AI_AZURE__STORAGE__ENDPOINT`, levels parted by `__`.
What went wrong is put into words by `settings_errors`.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from edge_ai_assets import usecase as usecases
from edge_ai_assets.home import Home
from edge_ai_assets.profiles import AzureProfile, StackHubProfile
from edge_ai_assets.settings_errors import Given, SettingsError

PREFIX = "EDGE_AI_"
PROFILES = {"azure": "azure.toml", "stack_hub": "stack_hub.toml"}
HOME = Path(".edge-ai")


class Settings(BaseSettings):
    """See the module; each field is the environment variable `EDGE_AI_<NAME>`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        frozen=True,
        hide_input_in_errors=True,
    )

    home: Path = Field(HOME, description="The one folder that holds everything local.")
    usecase: Path | None = Field(
        None, description="Use case file; the home's own, or the pump station, when absent."
    )
    azure: AzureProfile = Field(AzureProfile(), description="Azure's side, see azure.toml.")
    stack_hub: StackHubProfile = Field(StackHubProfile(), description="A site's side, see stack_hub.toml.")

    @classmethod
    def load(cls, **given: Any) -> Self:
        """From environment and files; what is given comes first.

        Raises:
            SettingsError: a sentence for each mistake, with file, section, field and what would do.
        """
        home = _Where(**{name: value for name, value in given.items() if name == "home"}).home
        where = Given(cls, _files(home), PREFIX, os.environ)
        if unknown := list(where.unknown_variables()):
            raise SettingsError("\n".join(unknown))
        try:
            return cls(**given)
        except ValidationError as error:
            # Without the cause: its inputs may hold a secret that somebody put where a reference belongs.
            raise where.refused(error) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _Environment(settings_cls), _Files(settings_cls)

    def folders(self) -> Home:
        return Home(self.home.absolute())

    def load_usecase(self) -> usecases.UseCase:
        """Raises `UseCaseError` for a file that cannot be used."""
        own = self.folders().usecase
        return usecases.load(
            self.usecase or (own if own.exists() else usecases.BUNDLED / "pump-station.yaml")
        )


class _Where(BaseSettings):
    """The home alone: the files in it are part of the settings."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True)

    home: Path = HOME


class _Environment(EnvSettingsSource):
    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """What is no JSON stays text: the error then is about the field, as any other."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


class _Files(PydanticBaseSettingsSource):
    """The profiles' files in the home that the sources before this one name."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError("they are read as a whole")

    def __call__(self) -> dict[str, Any]:
        files = _files(Path(self.current_state.get("home", HOME)))
        return {profile: found for profile, path in files.items() if (found := _read(path)) is not None}


def _files(home: Path) -> dict[str, Path]:
    return {profile: home / name for profile, name in PROFILES.items()}


def _read(path: Path) -> dict[str, Any] | None:
    """None when there is no file. A link that leads nowhere is not that: what it led to is not mounted."""
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))  # Windows begins a file with a mark
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is no TOML: {error}") from None
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError) and not path.is_symlink():
            return None
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
