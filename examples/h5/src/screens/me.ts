/** The caller: who they are here, their card, their orders, and the way out. */

import { h } from "../dom.js";
import { heika, ok, session } from "../heika.js";
import { go, notice, press, type Page } from "../page.js";
import { money, ORDERS, PLANS, TIERS } from "../words.js";
import { blackCard } from "./home.js";

export async function me(page: Page): Promise<void> {
  page.title("我的");
  const [profile, membership, points, { items: orders }] = await Promise.all([
    ok(heika.GET("/v1/me", { signal: page.left })),
    ok(heika.GET("/v1/me/membership", { signal: page.left })),
    ok(heika.GET("/v1/me/points", { signal: page.left })),
    ok(heika.GET("/v1/orders", { params: { query: { limit: 10 } }, signal: page.left })),
  ]);
  const out = h("button", { class: "plain wide" }, "退出登录");
  out.addEventListener("click", () => void press(out, async () => {
    // Gone here even when the line is down; the token is over in a quarter of an hour.
    await heika.POST("/v1/auth/logout").catch(() => null);
    session.write(null);
    notice("已退出登录。");
    go("#/");
  }));
  page.show(
    h("header", { class: "who" },
      h("span", { class: "face", "aria-hidden": "true" }, profile.nickname.slice(0, 1)),
      h("div", {}, h("h1", { tabindex: -1 }, profile.nickname),
        h("p", { class: "soft small" }, `${profile.phone_masked ?? ""} · ${TIERS[profile.tier] ?? profile.tier}`))),
    blackCard(membership, []),
    h("p", { class: "panel row" }, h("span", {}, "积分"), h("strong", {}, points.balance)),
    h("h2", {}, "我的订单"),
    h("ul", { class: "orders" }, ...orders.map((order) =>
      h("li", {}, h("a", { class: "panel row", href: `#/order/${order.id}` },
        h("span", {}, order.plan_code === null ? "课程" : PLANS[order.plan_code] ?? order.plan_code),
        h("span", { class: "soft small" }, ORDERS[order.status] ?? order.status), h("strong", {}, money(order.total)))))),
    orders.length === 0 && h("p", { class: "soft" }, "还没有订单。"),
    out,
  );
}
