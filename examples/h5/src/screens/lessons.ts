/** Lessons: the live ones by time, and the catalogue with a search in Chinese words. */

import { fill, h } from "../dom.js";
import { heika, ok } from "../heika.js";
import { press, type Page } from "../page.js";
import { courseRow, lessonRow } from "./home.js";

const GOING = ["live", "paused", "scheduled"];

export async function lessons(page: Page): Promise<void> {
  page.title("课程");
  const [{ items: live }, { items: courses }] = await Promise.all([
    ok(heika.GET("/v1/live-lessons", { params: { query: { limit: 50 } }, signal: page.left })),
    ok(heika.GET("/v1/courses", { params: { query: { limit: 8 } }, signal: page.left })),
  ]);
  const going = live.filter((lesson) => GOING.includes(lesson.status));
  going.sort((one, other) => GOING.indexOf(one.status) - GOING.indexOf(other.status) || one.starts_at.localeCompare(other.starts_at));
  const found = h("ul", { class: "courses", "aria-live": "polite" }, ...courses.map(courseRow));
  const words = h("input", { type: "search", name: "q", "aria-label": "搜索课程", placeholder: "搜索：戚风、吐司、月饼", maxlength: 60 });
  const find = h("button", { type: "submit", class: "plain" }, "搜索");

  async function search(): Promise<void> {
    const q = words.value.trim();
    const { items } = await ok(heika.GET("/v1/courses", { params: { query: q === "" ? { limit: 8 } : { q, limit: 20 } }, signal: page.left }));
    fill(found, ...(items.length > 0 ? items.map(courseRow) : [h("li", { class: "soft" }, `没有找到“${q}”，换个词试试。`)]));
  }

  page.show(
    h("h1", { tabindex: -1 }, "课程"),
    h("h2", {}, "直播"),
    ...(going.length > 0 ? going.map(lessonRow) : [h("p", { class: "soft" }, "近期没有直播。")]),
    h("h2", {}, "课程库"),
    h("form", { class: "row", role: "search", onsubmit: (event) => {
      event.preventDefault();
      void press(find, search);
    } }, words, find),
    found,
  );
}
