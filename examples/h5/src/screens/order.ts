/** An order: where the cashier leads back to. It follows the order until it is final, then shows what it opened. */

import { fill, h } from "../dom.js";
import { follow, heika, ok, type Shapes } from "../heika.js";
import { go, press, type Page } from "../page.js";
import { day, METHODS, money, ORDERS, PLANS } from "../words.js";

type Order = Shapes["OrderOut"];

export async function order(page: Page): Promise<void> {
  page.title("订单");
  // The cashier's way back names no order: it is the latest.
  const order_id = page.words[0] ?? (await ok(heika.GET("/v1/orders", { params: { query: { limit: 1 } } }))).items[0]?.id;
  if (order_id === undefined) return go("#/card");
  const path = { order_id };
  // Asks the provider now, in case its notice is late.
  const held = await ok(heika.GET("/v1/orders/{order_id}", { params: { path, query: { refresh: true } }, signal: page.left }));
  const head = h("div", { class: "outcome", "aria-live": "polite" });
  const steps = h("div", { class: "steps" });
  const until = h("p", { id: "opened" });
  let looking = false;
  const rows = h("dl", { class: "panel" });
  page.show(h("h1", { tabindex: -1 }, "订单"), head, rows, steps);
  show(held);
  const stream = follow((header) => heika.GET("/v1/orders/{order_id}/events", {
    params: { path, header }, parseAs: "stream", signal: page.left,
  }), page.left);
  for await (const { data } of stream) show(data as Order);

  function show(now: Order): void {
    fill(head, h("p", { class: `badge ${now.status}`, id: "order-status" }, ORDERS[now.status] ?? now.status),
      h("p", { class: "amount" }, money(now.total)), until);
    fill(rows, ...Object.entries({
      商品: now.plan_code === null ? "课程" : PLANS[now.plan_code] ?? now.plan_code,
      优惠: now.discount > 0 ? `-${money(now.discount)}` : "无",
      支付方式: METHODS[now.payment_method],
      订单号: now.number,
    }).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
    fill(steps, ...(now.status === "pending" ? waiting(now) : [h("a", { class: "button wide", href: "#/" }, "回首页")]));
    if (now.status === "paid" && now.kind === "membership" && !looking) void opened();
  }

  function waiting(now: Order): (HTMLElement | null)[] {
    const cancel = h("button", { class: "plain wide" }, "取消订单");
    cancel.addEventListener("click", () => void press(cancel, async () => {
      show(await ok(heika.POST("/v1/orders/{order_id}/cancel", { params: { path } })));
    }));
    return [now.checkout && h("a", { class: "button wide", href: now.checkout.url }, "继续支付"), cancel];
  }

  /** The card is there a moment after the money. */
  async function opened(): Promise<void> {
    looking = true;
    for (let tries = 0; tries < 40 && !page.left.aborted; tries++) {
      const held = await heika.GET("/v1/me/membership", { signal: page.left }).catch(() => null);
      if (held?.data?.status === "active" && held.data.ends_at !== null) {
        return fill(until, `黑卡已开通，有效期至 ${day(held.data.ends_at)}`);
      }
      await new Promise((done) => setTimeout(done, 500));
    }
  }
}
