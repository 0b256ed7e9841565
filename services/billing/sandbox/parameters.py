"""Request parameters, checked against the TypedDicts of the Stripe SDK itself, so that what the SDK lost is refused."""

import re
import sys
import types
from collections.abc import Collection
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from typing_extensions import is_typeddict

from services.billing.sandbox.wire import Refusal

MAX_TEXT = 5000
MAX_METADATA = 50
_OPTIONS = "stripe._request_options"


@cache
def fields_of(shape: type) -> dict[str, Any]:
    """The parameters of one of the SDK's TypedDicts and their types, without the SDK's own request options."""
    options = sys.modules[_OPTIONS].RequestOptions.__annotations__
    own = {name: hint for name, hint in shape.__annotations__.items() if name not in options}
    # The SDK imports this class for type checkers only; on the wire it is a mapping of text.
    return get_type_hints(
        types.SimpleNamespace(__annotations__=own),
        globalns=vars(sys.modules[shape.__module__]),
        localns={"UntypedStripeObject": dict},
    )


def check(shape: type, raw: dict[str, Any], takes: Collection[str]) -> dict[str, Any]:
    """Typed parameters; Refusal for one that Stripe does not know, or that this provider does not (`takes`)."""
    return _Check(frozenset(takes)).shape(shape, raw, ())


class _Check:
    def __init__(self, takes: frozenset[str]) -> None:
        self.takes = takes

    def shape(self, shape: type, raw: Any, path: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(raw, dict):
            raise Refusal(f"Invalid object: {_name(path)}", "parameter_invalid", _name(path))
        fields = fields_of(shape)
        checked = {}
        for key, value in raw.items():
            here = (*path, key)
            if key not in fields:
                raise Refusal(f"Received unknown parameter: {_name(here)}", "parameter_unknown", _name(here))
            if not self.taken(here):
                message = f"The sandbox provider does not take {_name(here)}, although Stripe would."
                raise Refusal(message, "parameter_not_in_sandbox", _name(here))
            checked[key] = self.value(fields[key], value, here)
        for key in sorted(getattr(shape, "__required_keys__", frozenset()) & fields.keys() - raw.keys()):
            raise Refusal(f"Missing required param: {_name((*path, key))}.", "parameter_missing", _name((*path, key)))
        return checked

    def taken(self, path: tuple[str, ...]) -> bool:
        words = [part for part in path if not part.isdigit()]
        return ".".join(words) in self.takes or any(
            ".".join((*words[:depth], "*")) in self.takes for depth in range(1, len(words))
        )

    def value(self, hint: Any, raw: Any, path: tuple[str, ...]) -> Any:
        if is_typeddict(hint):
            return self.shape(hint, raw, path)
        origin = get_origin(hint)
        if origin in (Union, types.UnionType):
            return self.union(get_args(hint), raw, path)
        if origin is list:
            return self.items(get_args(hint)[0], raw, path)
        if origin is dict or hint is dict:
            return _metadata(raw, path)
        if not isinstance(raw, str):
            raise Refusal(f"Invalid value: {_name(path)} must not be an object.", "parameter_invalid", _name(path))
        if origin is Literal:
            return _one_of(get_args(hint), raw, path)
        return _scalar(hint, raw, path)

    def union(self, members: tuple[Any, ...], raw: Any, path: tuple[str, ...]) -> Any:
        words = [word for member in members if get_origin(member) is Literal for word in get_args(member)]
        if isinstance(raw, str):
            if raw in words:
                return raw
            # "Literal | str" is how the SDK spells an enumeration that may grow; today's values are the valid ones.
            scalars = [member for member in members if member in (int, bool, Decimal) or (member is str and not words)]
            if scalars:
                return self.value(scalars[0], raw, path)
            return _one_of(tuple(words), raw, path)
        nested = [member for member in members if is_typeddict(member) or get_origin(member) in (dict, list)]
        if not nested:
            raise Refusal(f"Invalid value: {_name(path)} must not be an object.", "parameter_invalid", _name(path))
        return self.value(nested[0], raw, path)

    def items(self, hint: Any, raw: Any, path: tuple[str, ...]) -> list[Any]:
        if raw == "":
            return []
        if not isinstance(raw, dict) or not all(re.fullmatch(r"\d{1,4}", key) for key in raw):
            raise Refusal(f"Invalid array: {_name(path)}", "parameter_invalid", _name(path))
        return [self.value(hint, raw[key], (*path, key)) for key in sorted(raw, key=int)]


def _name(path: tuple[str, ...]) -> str:
    return path[0] + "".join(f"[{part}]" for part in path[1:])


def _one_of(words: tuple[Any, ...], raw: str, path: tuple[str, ...]) -> str:
    if raw not in words:
        listed = ", ".join(word for word in words if word)
        raise Refusal(f"Invalid {_name(path)}: must be one of {listed}", "parameter_invalid", _name(path))
    return raw


def _scalar(hint: Any, raw: str, path: tuple[str, ...]) -> Any:
    name = _name(path)
    if raw == "":
        message = f"You passed an empty string for '{name}'. It cannot be unset; leave the parameter out."
        raise Refusal(message, "parameter_invalid_empty", name)
    if len(raw) > MAX_TEXT:
        raise Refusal(f"Invalid string: {name} must be at most {MAX_TEXT} characters", "parameter_invalid", name)
    if hint is int:
        if not re.fullmatch(r"-?\d{1,15}", raw, re.ASCII):
            raise Refusal(f"Invalid integer: {raw[:50]}", "parameter_invalid_integer", name)
        return int(raw)
    if hint is bool:
        if raw not in ("true", "false"):
            raise Refusal(f"Invalid boolean: {raw[:50]}", "parameter_invalid_boolean", name)
        return raw == "true"
    if hint is Decimal:
        try:
            number = Decimal(raw)
        except InvalidOperation:
            number = Decimal("NaN")
        if not number.is_finite():
            raise Refusal(f"Invalid decimal: {raw[:50]}", "parameter_invalid_decimal", name)
        return number
    return raw


def _metadata(raw: Any, path: tuple[str, ...]) -> dict[str, str]:
    name = _name(path)
    if not isinstance(raw, dict) or not all(isinstance(value, str) for value in raw.values()):
        raise Refusal(f"Invalid object: {name} must be pairs of text", "parameter_invalid", name)
    if len(raw) > MAX_METADATA or any(len(key) > 40 or len(value) > 500 for key, value in raw.items()):  # noqa: PLR2004 - Stripe's limits
        raise Refusal(
            f"Invalid {name}: up to {MAX_METADATA} keys of 40 characters, values of 500", "metadata_invalid", name
        )
    # An empty value unsets its key.
    return {key: value for key, value in raw.items() if value}
