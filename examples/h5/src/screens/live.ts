/** A live lesson: a seat, the way in, who is there, and what they ask; being there is told every half minute. */

import { fill, h, icon } from "../dom.js";
import { follow, heika, ok, Refused, type Shapes } from "../heika.js";
import { notice, press, type Page } from "../page.js";
import { player } from "../player.js";
import { hour, LESSONS } from "../words.js";
import { questionsOf } from "./questions.js";
import { waysIn } from "./ways.js";

const BEAT_MS = 30_000;

export async function live(page: Page): Promise<void> {
  const lesson_id = page.words[0] ?? "";
  const at = { params: { path: { lesson_id } }, signal: page.left };
  const [lesson, access] = await Promise.all([
    ok(heika.GET("/v1/live-lessons/{lesson_id}", at)),
    ok(heika.GET("/v1/live-lessons/{lesson_id}/access", at)),
  ]);
  page.title(lesson.title);
  // The lesson is judged by Heika's clock, not by the phone's.
  const ahead = Date.parse(lesson.server_time) - Date.now();
  const state = h("span", { class: "state", id: "lesson-status" });
  const online = h("span", { id: "online" });
  const picture = h("p", { class: "picture" });
  const enter = h("button", { class: "wide" }, "进入直播间");
  const asked = questionsOf(lesson_id, page.left);
  const ask = h("div", { hidden: !access.granted }, asked.form);
  let status: string = lesson.status;
  let entered = false;

  function stand(): void {
    state.className = `state ${status}`;
    fill(state, LESSONS[status] ?? status);
    const going = status === "live" || status === "paused" || status === "scheduled";
    enter.hidden = entered || !access.granted || !going;
    const scene = status === "live" ? "你已在直播间" : status === "paused" ? "老师离开一下，马上回来" : "已入座，等待开播";
    fill(picture, entered && going ? scene : status === "scheduled" ? `${hour(lesson.starts_at)} 开播` : going ? "直播进行中" : LESSONS[status] ?? "");
  }

  async function comeIn(): Promise<void> {
    try {
      await ok(heika.POST("/v1/live-lessons/{lesson_id}/entry", at));
    } catch (refusal) {
      if (!(refusal instanceof Refused) || refusal.code !== "seat_required") throw refusal;
      const seat = await ok(heika.PUT("/v1/live-lessons/{lesson_id}/enrolment", at));
      if (seat.status === "waitlisted") return notice(`座位已满，你排在候补第 ${seat.position ?? "?"} 位，有空位会通知你。`);
      await ok(heika.POST("/v1/live-lessons/{lesson_id}/entry", at));
    }
    // Here a player would open room_url with room_token; the sandbox's rooms have neither picture nor sound.
    entered = true;
    stand();
    void attend();
  }

  /** Tell when the page was there. What could not be told is told with the next beat. */
  async function attend(): Promise<void> {
    let from = Date.now() + ahead;
    while (!page.left.aborted) {
      await new Promise((done) => setTimeout(done, BEAT_MS));
      const to = Date.now() + ahead - 1000;
      if (page.left.aborted || to <= from || status !== "live") continue;
      const body = { from: new Date(from).toISOString(), to: new Date(to).toISOString() };
      const told = await heika.POST("/v1/live-lessons/{lesson_id}/heartbeats", { ...at, body }).catch(() => null);
      if (told?.response.ok) from = to;
    }
  }

  stand();
  page.show(
    h("section", { class: "stage" },
      h("a", { class: "back", href: "#/lessons", "aria-label": "返回课程" }, icon("back")),
      h("div", { class: "facts" }, state, online),
      picture),
    h("h1", { tabindex: -1 }, lesson.title),
    h("p", { class: "soft" }, `主讲 ${lesson.instructor ?? "待定"} · ${hour(lesson.starts_at)}`),
    h("p", {}, lesson.description),
    enter,
    !access.granted && waysIn(lesson_id, access.options),
    h("h2", {}, "问老师"),
    ask,
    asked.list,
  );
  let replay = false;
  async function rerun(): Promise<void> {
    const recorded = () => ok(heika.GET("/v1/live-lessons/{lesson_id}/replay", at));
    if (replay || status !== "replay_ready" || !access.granted) return;
    replay = true;
    picture.replaceWith(player(`回放：${lesson.title}`, await recorded(), recorded));
  }

  await rerun();
  enter.addEventListener("click", () => void press(enter, comeIn));
  await asked.load();

  const stream = follow((header) => heika.GET("/v1/live-lessons/{lesson_id}/events", {
    params: { path: { lesson_id }, header }, parseAs: "stream", signal: page.left,
  }), page.left);
  for await (const { event, data } of stream) {
    if (event === "online") fill(online, `${(data as { online: number }).online} 人在线`);
    else if (event === "question") asked.put(data as Shapes["QuestionOut"]);
    else if (event === "answer") asked.answered(data as Shapes["AnswerOut"] & { question_id: string });
    else if (event === "notice") notice("课程安排有变化，请留意开播时间。");
    else if (event === "status") {
      status = (data as { status: string }).status;
      stand();
      await rerun();
    }
  }
}
