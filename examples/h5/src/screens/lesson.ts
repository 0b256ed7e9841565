/** A recorded lesson: it goes on where it was left, and tells Heika what was watched. */

import { h, icon } from "../dom.js";
import { heika, ok, type Shapes } from "../heika.js";
import type { Page } from "../page.js";
import { played, player } from "../player.js";
import { minutes } from "../words.js";

const TELL_MS = 15_000;

export async function lesson(page: Page): Promise<void> {
  const params = { path: { lesson_id: page.words[0] ?? "" } };
  const read = () => ok(heika.GET("/v1/lessons/{lesson_id}", { params, signal: page.left }));
  const shown = await read();
  page.title(shown.title);
  const progress = h("p", { class: "soft", id: "progress", role: "status" });
  const video = shown.playback && player(shown.title, shown.playback, async () => (await read()).playback);
  say(shown.progress);
  page.show(
    video ?? h("p", { class: "hint" }, "这节课还没有视频。"),
    h("a", { class: "back plain", href: `#/course/${shown.course_id}`, "aria-label": "返回课程" }, icon("back")),
    h("h1", { tabindex: -1 }, shown.title),
    progress,
    h("p", {}, shown.description),
    shown.attachments.length > 0 && h("h2", {}, "课件"),
    shown.attachments.length > 0 && h("ul", { class: "parts" }, ...shown.attachments.map((file) =>
      h("li", {}, h("a", { class: "panel", href: file.url, download: file.name }, file.name)))),
  );
  if (video !== null) watched(video);

  function say(held: Shapes["ProgressOut"] | null): void {
    progress.textContent = held === null ? minutes(shown.duration_s) : held.completed ? "已学完" : `已学 ${held.percent}%`;
  }

  /** Tell what was played, every quarter of a minute and at each stop; what could not be told is told the next time. */
  function watched(film: HTMLVideoElement): void {
    const since = played(film);
    let untold: [number, number][] = [];
    film.addEventListener("loadedmetadata", () => {
      const at = shown.progress?.position_s ?? 0;
      if (film.currentTime === 0 && at + 1 < film.duration) film.currentTime = at;
    }, { once: true });

    async function tell(): Promise<void> {
      const spans = [...untold, ...since()];
      untold = [];
      if (spans.length === 0) return;
      const body = { position_s: Math.floor(film.currentTime), watched: spans };
      const told = await heika.PUT("/v1/lessons/{lesson_id}/progress", { params, body }).catch(() => null);
      if (told?.data) say(told.data);
      else untold = [...spans, ...untold];
    }

    const timer = setInterval(() => void tell(), TELL_MS);
    film.addEventListener("pause", () => void tell());
    film.addEventListener("ended", () => void tell());
    page.left.addEventListener("abort", () => {
      clearInterval(timer);
      void tell();
    });
  }
}
