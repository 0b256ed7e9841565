"""A contest that somebody tries to win by a circle of their own: votes taken out by rule, prizes paid once, all of it provable."""

import io
import secrets
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from PIL import Image

from tests.journeys.first_light import Journey, Person
from tests.journeys.subscriber import subscriber_of
from tests.onebox.conftest import Heika

PRIZES = [
    {"from": 1, "to": 1, "title": "一等奖", "reward": {"kind": "membership_days", "value": 7}},
    {"from": 2, "to": 2, "title": "二等奖", "reward": {"kind": "coupon", "value": 800}},
    {"from": 3, "to": 3, "title": "三等奖", "reward": {"kind": "points", "value": 50}},
]


def enter(journey: Journey, contest: str, baker: Person) -> str:
    out = io.BytesIO()
    Image.new("RGB", (64, 48), secrets.choice(["tomato", "gold", "peru"])).save(out, "PNG")
    files = {"file": ("cake.png", out.getvalue(), "image/png")}
    picture = journey.call("POST", "/v1/uploads", 201, files=files, headers=baker.headers)["id"]
    body = {"title": f"{baker.name} 的蛋糕", "story": "亲手做的。", "upload_ids": [picture]}
    return str(journey.call("POST", f"/v1/contests/{contest}/entries", 201, json=body, headers=baker.headers)["id"])


@pytest.mark.timeout(240)
def test_a_circle_wins_nothing_and_each_winner_gets_the_prize_once(heika: Heika) -> None:
    heika.start()
    with closing(subscriber_of(heika)) as journey:
        form = {"grant_type": "password", "username": journey.email, "password": journey.password}
        token = journey.call("POST", "/v1/auth/token", 200, data=form)["access_token"]
        admin = {"Authorization": f"Bearer {token}"}
        bakers = [Person(name) for name in ("schemer", "honest", "third")]
        friends = [Person(f"friend {n}") for n in range(3)]
        others = [Person(f"other {n}") for n in range(3)]
        for person in (*bakers, *others):
            journey.register(person)
        code = journey.call("GET", "/v1/me/invite", 200, headers=bakers[0].headers)["code"]
        for friend in friends:
            journey.register(friend, invite_code=code)
        now = journey.now()
        ends_at = now + timedelta(days=1)
        body = {
            "title": "一日赛",
            "rules": "",
            "starts_at": now.isoformat(),
            "ends_at": ends_at.isoformat(),
            "prizes": PRIZES,
        }
        body |= {"accounts_before": body["ends_at"]}
        contest = journey.call("POST", "/v1/admin/contests", 201, json=body, headers=admin)["id"]
        schemer, honest, third = (enter(journey, contest, baker) for baker in bakers)
        for entry, voters in ((schemer, friends), (honest, others[:2]), (third, others[2:])):
            for voter in voters:
                journey.call("POST", f"/v1/entries/{entry}/votes", 201, headers=voter.headers)
        board = f"/v1/contests/{contest}/leaderboard"
        assert [item["entry_id"] for item in journey.call("GET", board, 200)["items"]] == [schemer, honest, third]

        # The friends came by one invitation: a third of a work's votes is what one circle may have.
        rule = {"rule": "invite_tree", "params": {"max_share": 0.34}, "dry_run": True}
        path = f"/v1/admin/contests/{contest}"
        found = journey.until(
            "all invitations are heard of",
            lambda: (
                (a := journey.call("POST", f"{path}/quarantine", 200, json=rule, headers=admin))["matched"] > 1 and a
            ),
        )
        assert (found["matched"], found["entries"]) == (2, 1)
        rule["dry_run"] = False
        assert journey.call("POST", f"{path}/quarantine", 200, json=rule, headers=admin)["votes"] == 2
        assert journey.call("POST", f"{path}/quarantine", 200, json=rule, headers=admin)["votes"] == 0
        ranks = [(item["rank"], item["votes"]) for item in journey.call("GET", board, 200)["items"]]
        assert ranks == [(1, 2), (2, 1), (2, 1)]

        assert journey.call("POST", f"{path}/settle", 409, headers=admin)["code"] == "contest_open"
        journey.call("POST", "/v1/sandbox/clock", 200, json={"now": ends_at.isoformat()}, timeout=60)
        for person in (*bakers, others[0]):
            journey.register(person)
        token = journey.call("POST", "/v1/auth/token", 200, data=form)["access_token"]
        admin = {"Authorization": f"Bearer {token}"}
        late = journey.call("POST", f"/v1/entries/{honest}/votes", 409, headers=others[0].headers)
        assert late["code"] == "contest_closed"
        results = journey.call("POST", f"{path}/settle", 200, headers=admin)
        assert [item["entry_id"] for item in results["items"]] == [honest, schemer, third]
        # One vote each: the one that came first decides.
        assert [item["tie_break"] for item in results["items"]] == [None, "reached_at", "reached_at"]
        assert results["removed"] == [{"rule": "invite_tree", "votes": 2}]
        assert journey.call("POST", f"{path}/settle", 200, headers=admin) == results
        assert journey.call("GET", f"/v1/contests/{contest}/results", 200) == results

        def prizes() -> tuple[list[int], list[int], list[int]]:
            coupons = journey.call("GET", "/v1/me/coupons", 200, headers=bakers[0].headers)["items"]
            points = journey.call("GET", "/v1/me/points", 200, headers=bakers[2].headers)["items"]
            return (
                [piece["days"] for piece in journey.pieces(bakers[1])],
                [coupon["value"] for coupon in coupons if coupon["title"] == "二等奖"],
                [item["delta"] for item in points if item["reason"] == "contest_prize"],
            )

        paid: Any = ([7], [800], [50])
        journey.until("the prizes are there", lambda: prizes() == paid)
        journey.call("POST", "/v1/sandbox/clock", 200, json={"advance": "PT1H"}, timeout=60)
        for baker in bakers:
            journey.register(baker)
        for service in ("showcase", "referrals"):
            assert heika.command("events", "republish", service).returncode == 0
        counted = heika.command("recount", contest)
        assert (counted.returncode, counted.stdout.splitlines()[-1]) == (0, "agrees with what was published"), (
            counted.stderr
        )
        report = journey.call("GET", f"/v1/contests/{contest}/integrity", 200)
        assert report["digest"] in counted.stdout
        assert (report["votes"], report["counted"], report["voters"]) == (6, 4, 6)
        assert prizes() == paid
