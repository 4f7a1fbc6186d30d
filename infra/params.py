"""The numbers of a run: ``params.yaml`` is the ``embedded`` profile; other profiles and single settings lie on top.

A profile is data (``infra/profiles/<name>.yaml``): a mapping of sections that replaces values of ``params.yaml``.
Whether a value has the right type is for the stage that owns it to say; here unknown sections and keys are refused.
"""

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from infra.errors import InfraError
from infra.needs import NEEDS

EMBEDDED: Final = "embedded"
"""The profile that ``params.yaml`` itself is."""

Params = dict[str, Any]


def profile_names(checkout: Path) -> list[str]:
    """Names of the profiles, the default first."""
    return [EMBEDDED, *sorted(path.stem for path in (checkout / "infra" / "profiles").glob("*.yaml"))]


def profile_params(checkout: Path, profile: str) -> Params:
    """All sections of a profile.

    Raises:
        InfraError: there is no such profile, or it names a section that ``params.yaml`` does not have.
    """
    params = _read(checkout / "params.yaml")
    overlay, _ = _overlay(checkout, profile)
    if unknown := sorted(set(overlay) - set(params)):
        msg = f"profile {profile}: params.yaml has no section {unknown[0]!r}"
        raise InfraError(msg)
    return merge(params, overlay)


def profile_needs(checkout: Path, profile: str) -> Params:
    """What a profile needs of a machine (see ``infra.needs``); nothing for ``embedded``.

    Raises:
        InfraError: there is no such profile.
    """
    return _overlay(checkout, profile)[1]


def _overlay(checkout: Path, profile: str) -> tuple[Params, Params]:
    """A profile's sections, and its needs."""
    if profile == EMBEDDED:
        return {}, {}
    if profile not in profile_names(checkout):
        msg = f"unknown profile {profile!r}; the profiles are {', '.join(profile_names(checkout))}"
        raise InfraError(msg)
    overlay = _read(checkout / "infra" / "profiles" / f"{profile}.yaml")
    return overlay, overlay.pop(NEEDS, {})


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> Params:
    """Lay one mapping on another: nested mappings are merged, everything else is replaced."""
    merged = copy.deepcopy(dict(base))
    for key, value in overlay.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def parse_settings(settings: Iterable[str]) -> Params:
    """Turn ``section.key=value`` texts into a nested mapping; values are YAML (``3``, ``[1, 2]``, ``true``, words).

    Raises:
        InfraError: a text has another form.
    """
    parsed: Params = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        keys = name.strip().split(".")
        if not equals or len(keys) < 2 or not all(keys):
            msg = f"setting {setting!r} is not of the form section.key=value"
            raise InfraError(msg)
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            msg = f"setting {setting!r}: the value is not valid YAML"
            raise InfraError(msg) from error
        for key in reversed(keys):
            value = {key: value}
        parsed = merge(parsed, value)
    return parsed


def apply_settings(params: Params, settings: Mapping[str, Any]) -> Params:
    """Lay settings on a profile's sections.

    Raises:
        InfraError: a section or a key is unknown.
    """
    for section, values in settings.items():
        if section not in params:
            msg = f"setting {section}: unknown section; the sections are {', '.join(params)}"
            raise InfraError(msg)
        if not isinstance(values, Mapping):
            msg = f"setting {section}: expected keys with values, found {values!r}"
            raise InfraError(msg)
        if unknown := sorted(set(values) - set(params[section])):
            known = ", ".join(sorted(params[section]))
            msg = f"setting {section}.{unknown[0]}: unknown key; the keys of {section} are {known}"
            raise InfraError(msg)
    return merge(params, settings)


def _read(path: Path) -> Params:
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        msg = f"cannot read {path}: {' '.join(str(error).split())}"
        raise InfraError(msg) from error
    if not isinstance(values, dict):
        msg = f"{path} must be a mapping of sections"
        raise InfraError(msg)
    return values
