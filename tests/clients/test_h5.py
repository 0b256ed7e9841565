"""The H5 example, walked on a phone: log in, buy, enter a lesson, vote; each step is held against the API as well."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Route, expect

from kit import clock
from kit.text import instant
from tests.clients import h5_page
from tests.clients.cakes import cake
from tests.clients.h5_page import Phone
from tests.gateway.browsing import MARKS, PHONE, browser
from tests.journeys.first_light import Journey, Person
from tests.journeys.test_first_light import journey_of
from tests.onebox.conftest import Heika

__all__ = ["browser"]

pytestmark = [
    *MARKS,
    pytest.mark.skipif(h5_page.missing() is not None, reason=str(h5_page.missing())),
]

MOBILE = "13900005173"
WORKS = (
    ("草莓奶油蛋糕", "苏念", "第三次才抹平奶油，女儿说像云。", ("#f3dfc6", "#c99a66", "#e9b56b", "#fff4e2", "#c8333f")),
    ("抹茶红豆", "江晚", "茶粉过了两遍筛，切面终于没有颗粒。", ("#dfe6d6", "#8a6b4c", "#8aa35c", "#f6f0da", "#7c2433")),
    ("可可莓果", "何川", "用的是社区里那罐可可粉。", ("#e6d6d2", "#6f4a37", "#6b4330", "#f7e6dc", "#7a2f5b")),
)
NO_LOCKS = """async () => {
  Object.defineProperty(navigator, "locks", { value: undefined, configurable: true });
  const asked = indexedDB.open("heika", 1);
  const database = await new Promise((done) => { asked.onsuccess = () => done(asked.result); });
  const change = database.transaction("exchanges", "readwrite");
  change.objectStore("exchanges").put({ whose: 2, until: Date.now() + 1500 }, "heika.session turn");
  await new Promise((done) => { change.oncomplete = done; });
  database.close();
}"""


class World:
    """A Heika with works, voters and a lesson that is on the air, and what the API says of it."""

    def __init__(self, heika: Heika) -> None:
        self.api: Journey = journey_of(heika)
        form = {"grant_type": "password", "username": self.api.email, "password": self.api.password}
        token = self.api.call("POST", "/v1/auth/token", 200, data=form)["access_token"]
        self.admin: dict[str, Any] = {"headers": {"Authorization": f"Bearer {token}"}}
        self.contest = self.api.call("GET", "/v1/contests", 200, params={"phase": "open"})["items"][0]["id"]
        self.people = [self._baker(*work) for work in WORKS]
        self.lesson = self._on_the_air()

    def _baker(self, title: str, nickname: str, story: str, colours: tuple[str, ...]) -> Person:
        person = Person(nickname)
        self.api.register(person)
        mine: dict[str, Any] = {"headers": person.headers}
        self.api.call("PATCH", "/v1/me", 200, json={"nickname": nickname}, **mine)
        file = {"file": ("cake.jpg", cake(*colours), "image/jpeg")}
        upload = self.api.call("POST", "/v1/uploads", 201, files=file, **mine)
        body = {"title": title, "story": story, "upload_ids": [upload["id"]]}
        self.api.call("POST", f"/v1/contests/{self.contest}/entries", 201, json=body, **mine)
        return person

    def _on_the_air(self) -> str:
        """A lesson for members that runs since ten minutes."""
        start = self.api.now() + timedelta(minutes=1)
        body = {
            "title": "跟做：一次成功的海绵蛋糕",
            "description": "从打发到脱模一步不落，提前称好鸡蛋、低粉和细砂糖，老师看着你的烤箱调火候。",
            "instructor": "林小满",
            "capacity": 30,
            "access": [{"kind": "membership"}, {"kind": "invites", "needed": 3}],
            "starts_at": instant(start),
            "ends_at": instant(start + timedelta(hours=2)),
        }
        lesson = str(self.api.call("POST", "/v1/admin/live-lessons", 201, json=body, **self.admin)["id"])
        for to in ("scheduled", "live"):
            self.turn(lesson, to)
        self.api.call("POST", "/v1/sandbox/clock", 200, json={"advance": "PT11M"}, timeout=60)
        return lesson

    def turn(self, lesson: str, to: str) -> None:
        self.api.call("POST", f"/v1/admin/live-lessons/{lesson}/transitions", 200, json={"to": to}, **self.admin)

    def mine(self, phone: Phone, path: str) -> Any:
        """What the API tells the person with this phone."""
        return self.api.call("GET", path, 200, headers=phone.headers())


def phone_of(context: BrowserContext, api: str, page: str) -> Phone:
    phone = Phone(context, api)
    phone.page.goto(page)
    phone.stands("黑卡烘焙")
    return phone


@pytest.mark.timeout(300)
def test_somebody_logs_in_buys_enters_a_lesson_and_votes_on_a_phone(
    browser: Browser, heika: Heika, tmp_path: Path
) -> None:
    with h5_page.served(tmp_path) as page, ThreadPoolExecutor(1) as aside:
        building = aside.submit(h5_page.build, heika.address, tmp_path)
        heika.start(HEIKA_ALLOWED_ORIGINS=page)
        world = World(heika)
        with closing(world.api):
            building.result()
            context = browser.new_context(
                viewport=PHONE,
                base_url=page,
                locale="zh-CN",
                device_scale_factor=2,
                has_touch=True,
                color_scheme="light",
            )
            context.add_init_script(h5_page.axe())
            context.set_default_timeout(20_000)
            phone = phone_of(context, heika.address, page)
            logs_in(phone, world)
            is_shown_the_ways_in(phone, world)
            buys_a_card(phone, world)
            watches_a_lesson(phone, world)
            enters_the_lesson(phone, world)
            votes(phone, world)
            sees_the_replay(phone, world)
            is_offline_for_a_while(phone, context)
            other = phone_of(context, heika.address, page)
            both_tabs_go_on(phone, other, world)
            logs_out_of_both(phone, other, world)
            assert (phone.errors, other.errors) == ([], [])
            assert (phone.new_refusals(), other.new_refusals()) == ([], [])
            context.close()


def logs_in(phone: Phone, world: World) -> None:
    page = phone.page
    expect(page.locator("#membership")).to_contain_text("还没有开通黑卡")
    page.get_by_role("link", name="我的", exact=True).click()
    expect(page).to_have_url(re.compile("#/login/me$"))
    phone.look("login")
    page.get_by_label("手机号").fill(MOBILE)
    page.get_by_role("button", name="获取验证码").click()
    expect(page.get_by_role("button", name=re.compile("秒后可再试"))).to_be_disabled()
    page.get_by_label("验证码").fill("000000")
    page.get_by_role("button", name="登录").click()
    phone.said("验证码不正确")
    assert phone.new_refusals() == [(401, "/v1/auth/otp/verify")]

    # A second code within the minute is refused, and the button says how long.
    page.reload()
    page.get_by_label("手机号").fill(MOBILE)
    page.get_by_role("button", name="获取验证码").click()
    expect(page.get_by_role("button", name=re.compile("秒后可再试"))).to_be_disabled()
    assert phone.new_refusals() == [(429, "/v1/auth/otp")]
    code = world.api.call("GET", "/v1/sandbox/otp", 200, params={"phone": MOBILE})["code"]
    page.get_by_label("验证码").fill(code)
    page.get_by_label("验证码").press("Enter")
    expect(page).to_have_url(re.compile("#/me$"))
    me = world.mine(phone, "/v1/me")
    phone.stands(me["nickname"])
    assert me["phone_masked"].endswith(MOBILE[-4:])

    page.get_by_role("link", name="首页").click()
    phone.stands("黑卡烘焙")
    page.get_by_role("button", name="签到").click()
    expect(page.get_by_text("已连签 1 天")).to_be_visible()
    assert world.mine(phone, "/v1/me/check-ins")["streak"] == 1


def is_shown_the_ways_in(phone: Phone, world: World) -> None:
    page = phone.page
    page.get_by_role("link", name="课程").click()
    phone.stands("课程")
    page.get_by_label("搜索课程").fill("戚风")
    page.get_by_role("button", name="搜索").click()
    expect(page.locator(".course strong").first).to_contain_text("戚风")
    phone.look("lessons")
    page.locator(f'a[href="#/live/{world.lesson}"]').click()
    expect(page.get_by_text("任选一种方式进入")).to_be_visible()
    expect(page.get_by_role("button", name="进入直播间")).to_be_hidden()
    assert world.mine(phone, f"/v1/live-lessons/{world.lesson}/access")["granted"] is False
    phone.look("ways")
    page.get_by_role("link", name="开通黑卡").click()


def buys_a_card(phone: Phone, world: World) -> None:
    page = phone.page
    phone.stands("开通黑卡")
    page.get_by_role("button", name="领取").click()
    expect(page.locator("#coupon")).to_be_visible()
    assert [coupon["value"] for coupon in world.mine(phone, "/v1/me/coupons")["items"]] == [500]
    expect(page.locator(".total")).to_contain_text("¥44")
    phone.look("card")

    # The provider is away: the button says for how long, and the same press goes on.
    fault = {"faults": [{"target": "calls", "kind": "error", "times": 20, "match": "/v1/checkout"}]}
    world.api.call("PUT", "/v1/sandbox/faults", 200, json=fault)
    page.get_by_role("button", name="去支付").click()
    expect(page.get_by_role("button", name=re.compile("秒后可再试"))).to_be_disabled()
    assert phone.new_refusals() == [(503, "/v1/orders")]
    world.api.call("PUT", "/v1/sandbox/faults", 200, json={"faults": []})
    page.get_by_role("button", name="去支付").click()

    page.wait_for_url("**/v1/sandbox/checkout/*")
    page.locator("#pay").click()
    phone.stands("订单")
    expect(page.locator("#order-status")).to_have_text("已支付")
    [order] = world.mine(phone, "/v1/orders")["items"]
    assert (order["status"], order["total"], order["discount"]) == ("paid", 4400, 500)
    expect(page.locator("#opened")).to_contain_text("黑卡已开通")
    ends_at = datetime.fromisoformat(world.mine(phone, "/v1/me/membership")["ends_at"]).astimezone(clock.ZONE)
    shown = f"{ends_at.year}年{ends_at.month}月{ends_at.day}日"
    expect(page.locator("#opened")).to_have_text(f"黑卡已开通，有效期至 {shown}")
    phone.look("order")
    page.get_by_role("link", name="回首页").click()
    expect(page.locator("#membership")).to_contain_text(f"有效期至 {shown}")
    phone.look("home")


def watches_a_lesson(phone: Phone, world: World) -> None:
    page, api = phone.page, world.api
    courses = api.call("GET", "/v1/courses", 200)["items"]
    course = next(course for course in courses if course["access"] == "member")
    shown = api.call("GET", f"/v1/courses/{course['id']}", 200)
    lesson = shown["lessons"][0]
    # As long as the sandbox's recording is.
    api.call("PATCH", f"/v1/admin/lessons/{lesson['id']}", 200, json={"duration_s": 3}, **world.admin)
    phone.go("#/lessons", "课程")
    page.get_by_label("搜索课程").fill(course["title"])
    page.get_by_role("button", name="搜索").click()
    page.locator(f'a[href="#/course/{course["id"]}"]').click()
    phone.stands(course["title"])
    expect(page.locator(".parts li")).to_have_count(len(shown["lessons"]))
    phone.look("course")
    with page.expect_response(re.compile(f"/v1/lessons/{lesson['id']}/media")) as part:
        page.locator(f'a[href="#/lesson/{lesson["id"]}"]').click()
    assert part.value.status == 206
    phone.stands(lesson["title"])
    phone.look("lesson")
    # To its end, and the page tells what was watched.
    page.locator("video").evaluate("film => film.play()")
    expect(page.locator("video")).to_have_js_property("ended", value=True)
    expect(page.locator("#progress")).to_have_text("已学完")
    told = world.mine(phone, f"/v1/lessons/{lesson['id']}")["progress"]
    assert told == {"percent": 100, "completed": True, "position_s": 3}


def sees_the_replay(phone: Phone, world: World) -> None:
    page = phone.page
    world.turn(world.lesson, "ended")
    lesson = f"/v1/admin/live-lessons/{world.lesson}"
    world.api.call("PATCH", lesson, 200, json={"media": "demo.wav"}, **world.admin)
    world.turn(world.lesson, "replay_ready")
    with page.expect_response(re.compile(f"/v1/live-lessons/{world.lesson}/media")) as part:
        phone.go(f"#/live/{world.lesson}", "跟做：一次成功的海绵蛋糕")
    assert part.value.status == 206
    expect(page.locator(".stage video")).to_have_js_property("duration", 3)
    phone.look("replay")
    # A link that is no longer taken is asked for anew.
    film = page.locator(".stage video")
    spoiled = str(film.evaluate("film => film.src = film.src.replace('signature=', 'signature=0')"))
    expect(film).not_to_have_attribute("src", spoiled)
    expect(film).to_have_js_property("duration", 3)
    # Browsers differ in whether they report what a player was refused.
    assert set(phone.new_refusals()) <= {(403, f"/v1/live-lessons/{world.lesson}/media")}


def enters_the_lesson(phone: Phone, world: World) -> None:
    page, api, lesson = phone.page, world.api, f"/v1/live-lessons/{world.lesson}"
    page.clock.install()
    phone.go(f"#/live/{world.lesson}", "跟做：一次成功的海绵蛋糕")
    expect(page.locator("#online")).to_have_text("1 人在线")
    page.get_by_role("button", name="进入直播间").click()
    expect(page.get_by_text("你已在直播间")).to_be_visible()
    assert phone.new_refusals() == [(403, f"{lesson}/entry")]
    assert world.mine(phone, f"{lesson}/enrolment") == {"status": "enrolled", "position": None}

    page.get_by_label("你的问题").fill("全蛋打发到什么程度算好？")
    page.get_by_role("button", name="提问").click()
    [question] = api.until("the question", lambda: api.call("GET", f"{lesson}/questions", 200)["items"])
    assert (question["text"], question["upvotes"]) == ("全蛋打发到什么程度算好？", 0)
    other = world.people[0]
    grant = {"days": 7, "reason": "同学"}
    api.call("POST", f"/v1/admin/members/{other.id}/membership-grants", 201, json=grant, **world.admin)

    def upvoted() -> bool:
        answer = api.http.put(f"/v1/questions/{question['id']}/upvote", headers=other.headers)
        return answer.status_code == 200

    api.until("the other's card", upvoted)
    expect(page.locator(".question .vote")).to_have_text("1")
    body = {"text": "提起打蛋头画 8 字，十秒不消失就够了。"}
    api.call("POST", f"/v1/questions/{question['id']}/answers", 201, json=body, **world.admin)
    expect(page.locator(".answer")).to_contain_text("十秒不消失")
    phone.look("live")

    # Half a minute goes by on both clocks, and the page tells that it was there.
    api.call("POST", "/v1/sandbox/clock", 200, json={"advance": "PT32S"}, timeout=60)
    page.clock.fast_forward(31_000)

    def attended() -> int:
        sheet = api.call("GET", f"/v1/admin/live-lessons/{world.lesson}/attendance.csv", 200, **world.admin)
        mine = world.mine(phone, "/v1/me")["id"]
        [row] = [line for line in sheet.text.splitlines() if line.startswith(mine)]
        return int(row.split(",")[2])

    assert 25 <= api.until("the heartbeat", attended) <= 60
    world.turn(world.lesson, "paused")
    expect(page.locator("#lesson-status")).to_have_text("暂停中")


def votes(phone: Phone, world: World) -> None:
    page, api = phone.page, world.api
    phone.go("#/contest", "我的第一个蛋糕")
    entries = api.call("GET", f"/v1/contests/{world.contest}/entries", 200)["items"]
    chosen = next(entry["id"] for entry in entries if entry["title"] == WORKS[0][0])
    button = page.locator(f'[data-entry="{chosen}"]')
    expect(page.locator(".work")).to_have_count(len(entries))
    button.click()
    expect(page.locator("#votes-left")).to_have_text("今天还可以投 2 票")
    expect(button).to_have_text("1")
    assert api.call("GET", f"/v1/entries/{chosen}", 200)["votes"] == 1
    # Somebody else votes, and the count moves by itself.
    api.call("POST", f"/v1/entries/{chosen}/votes", 201, headers=world.people[1].headers)
    expect(button).to_have_text("2")
    page.wait_for_function("[...document.images].slice(0, 2).every((image) => image.naturalWidth > 0)")
    phone.look("contest")

    page.reload()
    expect(button).to_have_attribute("aria-pressed", "false")
    button.click()
    phone.said("今天已经给这件作品投过票了")
    assert phone.new_refusals() == [(409, f"/v1/entries/{chosen}/votes")]
    button.click()
    expect(button).to_have_text("1")
    assert api.call("GET", f"/v1/entries/{chosen}", 200)["votes"] == 1


def is_offline_for_a_while(phone: Phone, context: BrowserContext) -> None:
    page = phone.page
    context.set_offline(True)
    expect(page.locator("#line")).to_have_text("网络已断开，恢复后会自动继续")
    page.get_by_role("link", name="课程").click()
    expect(page.get_by_text("网络不通，请检查网络后再试。")).to_be_visible()
    phone.look("offline")
    context.set_offline(False)
    phone.stands("课程")
    expect(page.locator("#line")).to_be_hidden()


def both_tabs_go_on(phone: Phone, other: Phone, world: World) -> None:
    """Both tokens are over; neither tab has a new one before both were refused, and one exchange serves them. Then once more.

    The last time both are like pages over plain http, and a third one was closed in the midst of its turn.
    """
    held: list[Route] = []
    phone.page.context.route("**/v1/auth/refresh", lambda route, _: held.append(route))
    for round_ in ("#/me", "#/me/again", "#/me/without-locks"):
        if round_.endswith("locks"):
            for tab in (phone, other):
                tab.page.evaluate(NO_LOCKS)
        used = phone.tokens()
        world.api.call("POST", "/v1/sandbox/clock", 200, json={"advance": "PT16M"}, timeout=60)
        phone.calls.clear()
        other.calls.clear()
        for tab in (phone, other):
            tab.page.evaluate("to => { location.hash = to }", round_)
        refused: list[set[int]] = [set(), set()]
        until = time.monotonic() + 20
        while not (held and all(refused)) and time.monotonic() < until:
            phone.page.wait_for_timeout(20)
            for seen, tab in zip(refused, (phone, other), strict=True):
                seen.update(status for status, _ in tab.new_refusals())
        assert refused == [{401}, {401}]
        held.pop().continue_()
        for tab in (phone, other):
            expect(tab.page.locator("main")).not_to_have_attribute("aria-busy", "true")
            expect(tab.page.get_by_text("我的订单")).to_be_visible()
            assert {status for status, _ in tab.new_refusals()} <= {401}
        assert [*phone.calls, *other.calls].count("POST /v1/auth/refresh") == 1
        assert phone.tokens() == other.tokens() != used
        assert len(world.mine(phone, "/v1/me/sessions")["items"]) == 1
    phone.page.context.unroute("**/v1/auth/refresh")
    assert held == []
    phone.look("me")


def logs_out_of_both(phone: Phone, other: Phone, world: World) -> None:
    held = phone.headers()
    phone.page.get_by_role("button", name="退出登录").click()
    phone.stands("黑卡烘焙")
    expect(other.page).to_have_url(re.compile("#/login"))
    assert world.api.http.get("/v1/me", headers=held).status_code == 401
