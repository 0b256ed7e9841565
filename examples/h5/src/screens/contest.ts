/** A contest: the works, the votes one has, and the counts as they move. */

import { fill, h, icon } from "../dom.js";
import { follow, heika, ok, Refused, session, type Shapes } from "../heika.js";
import { go, notice, press, type Page } from "../page.js";
import { day } from "../words.js";

type Entry = Shapes["EntryOut"];
type Leaders = { items: Shapes["LeaderOut"][] };

export async function contest(page: Page): Promise<void> {
  page.title("比赛");
  const query = { phase: "open", limit: 1 } as const;
  const contest_id = page.words[0] ?? (await ok(heika.GET("/v1/contests", { params: { query } }))).items[0]?.id;
  if (contest_id === undefined) return page.show(h("h1", { tabindex: -1 }, "比赛"), h("p", { class: "soft" }, "现在没有进行中的比赛。"));
  const path = { contest_id };
  const [shown, works] = await Promise.all([
    ok(heika.GET("/v1/contests/{contest_id}", { params: { path }, signal: page.left })),
    ok(heika.GET("/v1/contests/{contest_id}/entries", { params: { path, query: { sort: "top", limit: 50 } }, signal: page.left })),
  ]);
  const left = h("p", { class: "hint", id: "votes-left", "aria-live": "polite" }, `每天可投 ${shown.votes_per_day} 票`);
  const counts = new Map<string, (votes: number | null) => void>();
  page.show(
    h("h1", { tabindex: -1 }, shown.title),
    h("p", { class: "soft" }, `${shown.entries} 件作品 · ${shown.phase === "open" ? `${day(shown.ends_at)}截止` : "已截止"}`),
    h("details", { class: "panel" }, h("summary", {}, "规则与奖品"), h("p", {}, shown.rules),
      h("ul", {}, ...shown.prizes.map((prize) => h("li", {}, prize.title)))),
    left,
    h("ul", { class: "works" }, ...works.items.map((entry) => work(entry, counts, left))),
    works.items.length === 0 && h("p", { class: "soft" }, "还没有作品，来做第一个参赛的人。"),
  );
  const stream = follow((header) => heika.GET("/v1/contests/{contest_id}/leaderboard/events", {
    params: { path, query: { limit: 100 }, header }, parseAs: "stream", signal: page.left,
  }), page.left);
  for await (const { data } of stream) {
    for (const leader of (data as Leaders).items) counts.get(leader.entry_id)?.(leader.votes);
  }
}

function work(entry: Entry, counts: Map<string, (votes: number | null) => void>, left: HTMLElement): HTMLElement {
  const image = entry.images[0];
  const params = { path: { entry_id: entry.id } };
  const count = h("span", { class: "count" });
  const button = h("button", { class: "vote", "aria-pressed": "false", "data-entry": entry.id }, icon("heart"), count);

  function show(votes: number | null): void {
    fill(count, votes ?? "投票");
    button.setAttribute("aria-label", `给《${entry.title}》投票${votes === null ? "" : `，现有 ${votes} 票`}`);
  }

  async function toggle(): Promise<void> {
    if (session.read() === null) return go(`#/login/contest/${entry.contest_id}`);
    const mine = button.getAttribute("aria-pressed") === "true";
    try {
      const now = await ok(mine ? heika.DELETE("/v1/entries/{entry_id}/votes", { params }) : heika.POST("/v1/entries/{entry_id}/votes", { params }));
      button.setAttribute("aria-pressed", String(!mine));
      show(now.entry_votes);
      fill(left, `今天还可以投 ${now.votes_left_today} 票`);
      notice(mine ? "已收回这一票。" : "投票成功，谢谢你的支持！");
    } catch (refusal) {
      // Voted for on another device, or before this page was opened.
      if (refusal instanceof Refused && refusal.code === "already_voted") button.setAttribute("aria-pressed", "true");
      throw refusal;
    }
  }

  counts.set(entry.id, show);
  show(entry.votes);
  button.addEventListener("click", () => void press(button, toggle));
  const small = image === undefined ? undefined : Object.values(image.thumbnails)[0] ?? image.url;
  return h(
    "li",
    { class: "panel work" },
    image !== undefined && h("img", { src: small, alt: entry.title, loading: "lazy", width: image.width, height: image.height }),
    h("div", { class: "work-foot" },
      h("div", {}, h("strong", {}, entry.title), h("span", { class: "soft small" }, entry.member.nickname)), button),
    entry.story !== "" && h("p", { class: "soft small story" }, entry.story),
  );
}
