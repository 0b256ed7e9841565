/** The ways into a live lesson that the caller does not have yet; there is always one that needs no sharing. */

import { h } from "../dom.js";
import { heika, ok, type Shapes } from "../heika.js";
import { notice, press } from "../page.js";
import { money } from "../words.js";

export function waysIn(lesson_id: string, options: Shapes["Option"][]): HTMLElement {
  return h(
    "section",
    { class: "panel ways" },
    h("strong", {}, "任选一种方式进入"),
    ...options.map((way) => h("div", { class: "way" }, ...oneWay(lesson_id, way))),
  );
}

function oneWay(lesson_id: string, way: Shapes["Option"]): Node[] {
  const words = h("span", {});
  switch (way.kind) {
    case "membership":
      words.textContent = "黑卡会员免费";
      return [words, h("a", { class: "button", href: "#/card" }, "开通黑卡")];
    case "invites": {
      words.textContent = `邀请新朋友 ${way.have ?? 0} / ${way.needed ?? 0}`;
      const share = h("button", { class: "plain" }, "复制邀请链接");
      share.addEventListener("click", () => void press(share, async () => {
        const link = await ok(heika.POST("/v1/live-lessons/{lesson_id}/invite-links", { params: { path: { lesson_id } } }));
        await navigator.clipboard.writeText(link.url);
        notice("邀请链接已复制，发给朋友吧。");
      }));
      return [words, share];
    }
    case "points":
      words.textContent = `${way.needed ?? 0} 积分（现有 ${way.have ?? 0}）`;
      return [words];
    case "purchase":
      words.textContent = way.amount == null ? "单独购买" : `单独购买 ${money(way.amount)}`;
      return [words];
    case "free":
      words.textContent = "免费";
      return [words];
  }
}
