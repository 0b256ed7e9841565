/** The page: which screen belongs to which address, the tabs below it, and what it says when the line is down. */

import { fill, h, icon } from "./dom.js";
import { isOver, session } from "./heika.js";
import { go, trouble, type Screen } from "./page.js";
import { card } from "./screens/card.js";
import { contest } from "./screens/contest.js";
import { course } from "./screens/course.js";
import { home } from "./screens/home.js";
import { lesson } from "./screens/lesson.js";
import { lessons } from "./screens/lessons.js";
import { live } from "./screens/live.js";
import { login } from "./screens/login.js";
import { me } from "./screens/me.js";
import { order } from "./screens/order.js";

const OPEN: Record<string, Screen> = { "": home, login, lessons, course, contest };
const MEMBERS: Record<string, Screen> = { card, order, lesson, live, me };
const TABS = [
  ["", "首页", "home"],
  ["lessons", "课程", "lessons"],
  ["contest", "比赛", "contest"],
  ["me", "我的", "me"],
] as const;

let leave = new AbortController();
/** Whose screens these are; another tab may log in or out. */
let shownFor = session.read() !== null;

async function show(): Promise<void> {
  leave.abort();
  leave = new AbortController();
  const left = leave.signal;
  const [name = "", ...words] = location.hash.replace(/^#\//, "").split("/");
  shownFor = session.read() !== null;
  if (!shownFor && name in MEMBERS) return location.replace(`#/login/${[name, ...words].join("/")}`);
  const screen = MEMBERS[name] ?? OPEN[name] ?? home;
  const place = document.getElementById("screen") as HTMLElement;
  const showing = (...nodes: (Node | null | false)[]): void => {
    if (left.aborted) return;
    fill(place, ...nodes);
    place.removeAttribute("aria-busy");
    place.querySelector<HTMLElement>("h1")?.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  };
  place.setAttribute("aria-busy", "true");
  tabs(name);
  const title = (text: string): void => void (document.title = `${text} · 黑卡烘焙`);
  try {
    await screen({ words, left, title, show: showing });
  } catch (failure) {
    if (left.aborted) return;
    if (isOver(failure)) return go(`#/login/${[name, ...words].join("/")}`);
    showing(trouble(failure, () => void show(), left));
  }
}

function tabs(name: string): void {
  const bar = document.getElementById("tabs") as HTMLElement;
  const current = { card: "me", order: "me", live: "lessons", course: "lessons", lesson: "lessons" }[name] ?? name;
  bar.hidden = name === "login" || name === "live";
  fill(
    bar,
    ...TABS.map(([to, words, drawing]) =>
      h("a", { href: `#/${to}`, "aria-current": to === current && "page" }, icon(drawing), h("span", {}, words)),
    ),
  );
}

function line(): void {
  const said = document.getElementById("line") as HTMLElement;
  said.hidden = navigator.onLine;
  said.textContent = navigator.onLine ? "" : "网络已断开，恢复后会自动继续";
}

window.addEventListener("hashchange", () => void show());
window.addEventListener("online", line);
window.addEventListener("offline", line);
// Another tab has logged in or out. A renewed token changes nothing that is seen.
window.addEventListener("storage", () => {
  if ((session.read() !== null) !== shownFor) void show();
});
line();
void show();
