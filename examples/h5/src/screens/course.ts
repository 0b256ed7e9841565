/** A course: what it teaches, what it takes to see it, and its lessons. */

import { h, icon } from "../dom.js";
import { heika, ok, type Shapes } from "../heika.js";
import type { Page } from "../page.js";
import { minutes } from "../words.js";

export async function course(page: Page): Promise<void> {
  const params = { path: { course_id: page.words[0] ?? "" } };
  const shown = await ok(heika.GET("/v1/courses/{course_id}", { params, signal: page.left }));
  page.title(shown.title);
  page.show(
    h("a", { class: "back plain", href: "#/lessons", "aria-label": "返回课程" }, icon("back")),
    h("h1", { tabindex: -1 }, shown.title),
    h("p", { class: "soft" }, `主讲 ${shown.instructor?.name ?? "待定"} · ${shown.lessons.length} 节课`),
    h("p", {}, shown.description),
    h("h2", {}, "课程内容"),
    h("ol", { class: "parts" }, ...shown.lessons.map(part)),
  );
}

function part(lesson: Shapes["LessonItem"]): HTMLElement {
  return h("li", {}, h("a", { class: "panel lesson", href: `#/lesson/${lesson.id}` },
    h("strong", {}, lesson.title),
    h("span", { class: "soft small" }, minutes(lesson.duration_s))));
}
