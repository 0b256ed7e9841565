"""The events' schemas are committed, and a change that breaks a listener is found."""

import copy

from contracts import schemas


def test_the_committed_schemas_are_the_current_ones() -> None:
    assert schemas.committed() == schemas.current(), "run: python -m contracts.schemas"


def test_an_event_carries_its_id_and_instant() -> None:
    for name, schema in schemas.current().items():
        assert {"id", "at"} <= schema["properties"].keys(), name


def test_a_removed_changed_or_newly_required_field_is_a_break() -> None:
    old = schemas.current()["members.membership.changed"]
    assert schemas.breaks(old, old) == []
    gone = copy.deepcopy(old)
    del gone["properties"]["version"]
    assert schemas.breaks(old, gone) == ["version is gone"]
    changed = copy.deepcopy(old)
    changed["properties"]["version"] = {"type": "string"}
    assert schemas.breaks(old, changed) == ["version is another thing now"]
    deep = copy.deepcopy(old)
    del deep["$defs"]["SegmentPicture"]["properties"]["days"]
    assert schemas.breaks(old, deep) == ["segments is another thing now"]
    grown = copy.deepcopy(old)
    grown["$defs"]["SegmentPicture"]["properties"]["note"] = {"type": "string", "default": ""}
    assert schemas.breaks(old, grown) == []
    del grown["$defs"]["SegmentPicture"]["properties"]["note"]["default"]
    assert schemas.breaks(old, grown) == ["segments is another thing now"]
    grown["$defs"]["SegmentPicture"]["properties"]["days"] = {"type": "string"}
    assert schemas.breaks(old, grown) == ["segments is another thing now"]
    wider = copy.deepcopy(old)
    wider["properties"]["note"] = {"type": "string", "default": ""}
    assert schemas.breaks(old, wider) == []
    required = copy.deepcopy(old)
    required["properties"]["note"] = {"type": "string"}
    assert schemas.breaks(old, required) == ["note is newly required: events told before lack it"]
