/** Home: the card and how long it lasts, today's check-in, the next live lesson, the open contest, new courses. */

import { h } from "../dom.js";
import { heika, ok, type Shapes } from "../heika.js";
import { go, notice, press, type Page } from "../page.js";
import { day, hour, LESSONS, money, PLANS } from "../words.js";

export async function home(page: Page): Promise<void> {
  page.title("首页");
  const shown = await ok(heika.GET("/v1/home", { signal: page.left }));
  const next = shown.live_lessons[0];
  page.show(
    h("header", { class: "top" }, h("h1", { tabindex: -1 }, "黑卡烘焙"), checkIn(shown.check_in)),
    blackCard(shown.membership ?? null, shown.plans),
    shown.degraded.length > 0 && h("p", { class: "hint", role: "status" }, "部分内容暂时没有加载出来，稍后会恢复。"),
    next !== undefined && h("h2", {}, "下一场直播"),
    next !== undefined && lessonRow(next),
    shown.contest !== null && h("h2", {}, "正在进行的比赛"),
    shown.contest !== null && contestRow(shown.contest),
    h("h2", {}, "新上课程"),
    h("ul", { class: "courses" }, ...shown.courses.slice(0, 4).map(courseRow)),
  );
}

/** The card itself, or what it would cost. */
export function blackCard(membership: Shapes["MembershipOut"] | null, plans: Shapes["PlanOut"][]): HTMLElement {
  const held = membership !== null && (membership.status === "active" || membership.status === "grace");
  const cheapest = plans.reduce<number | null>((low, plan) => Math.min(low ?? Infinity, plan.amount / plan.months), null);
  return h(
    "section",
    { class: "card", "aria-label": "会员卡" },
    h("p", { class: "card-name" }, "黑卡", h("span", {}, "BLACK CARD")),
    held
      ? h("p", { class: "card-state", id: "membership" },
          h("strong", {}, `有效期至 ${day(membership.ends_at ?? "")}`),
          h("span", {}, `${PLANS[membership.plan_code ?? ""] ?? "黑卡"} · 还有 ${membership.days_left} 天`))
      : h("p", { class: "card-state", id: "membership" },
          h("strong", {}, membership?.status === "expired" ? "黑卡已到期" : "还没有开通黑卡"),
          h("span", {}, cheapest === null ? "会员课程随心看" : `会员课程随心看，低至 ${money(Math.round(cheapest))} 一个月`)),
    h("a", { class: "card-button", href: "#/card" }, held ? "续费" : "立即开通"),
  );
}

function checkIn(held: Shapes["Home"]["check_in"]): HTMLElement | null {
  if (held === null || held === undefined) return null;
  if (held.today !== null) return h("span", { class: "chip" }, `已连签 ${held.streak} 天`);
  const button = h("button", { class: "chip" }, "签到");
  button.addEventListener("click", () => void press(button, async () => {
    const today = await ok(heika.POST("/v1/me/check-ins"));
    notice(`签到成功，积分 +${today.points}`);
    button.replaceWith(h("span", { class: "chip" }, `已连签 ${today.streak} 天`));
  }));
  return button;
}

/** A live lesson in a list. */
export function lessonRow(lesson: Shapes["LiveLessonOut"]): HTMLElement {
  return h(
    "a",
    { class: "panel lesson", href: `#/live/${lesson.id}` },
    h("span", { class: `state ${lesson.status}` }, LESSONS[lesson.status] ?? lesson.status),
    h("strong", {}, lesson.title),
    h("span", { class: "soft small" }, `${hour(lesson.starts_at)} · 主讲 ${lesson.instructor ?? "待定"}`),
    h("span", { class: "soft small" }, seats(lesson)),
  );
}

const seats = ({ capacity, enrolled }: Shapes["LiveLessonOut"]): string =>
  capacity === null ? `${enrolled} 人已报名` : `${enrolled} / ${capacity} 人已报名`;

function contestRow(contest: NonNullable<Shapes["Home"]["contest"]>): HTMLElement {
  return h(
    "section",
    { class: "panel contest", onclick: () => go(`#/contest/${contest.id}`) },
    h("a", { href: `#/contest/${contest.id}` }, h("strong", {}, contest.title)),
    h("span", { class: "soft small" }, `${contest.entries} 件作品 · ${day(contest.ends_at)}截止`),
    h("ol", {}, ...contest.top.map((leader) =>
      h("li", {}, h("span", {}, leader.title), h("span", { class: "soft" }, leader.votes === null ? "" : `${leader.votes} 票`)))),
  );
}

/** A course in a list. */
export function courseRow(course: Shapes["CourseOut"]): HTMLElement {
  const access = { free: "免费", member: "黑卡", paid: course.amount === null ? "付费" : money(course.amount) }[course.access];
  return h(
    "li",
    { class: "panel course" },
    h("span", { class: `tile ${course.category}`, "aria-hidden": "true" }, course.title.slice(0, 1)),
    h("a", { class: "text", href: `#/course/${course.id}` }, h("strong", {}, course.title), h("span", { class: "soft small" }, course.description)),
    h("span", { class: `tag ${course.access}` }, access),
  );
}
