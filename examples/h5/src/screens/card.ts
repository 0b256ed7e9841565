/** Buy a card: which one, with which coupon, paid how; the price shown is the one that will be asked. */

import { fill, h } from "../dom.js";
import { heika, newKey, ok, Refused, sentence, type Shapes } from "../heika.js";
import { go, press, type Page } from "../page.js";
import { BENEFITS, day, METHODS, money } from "../words.js";

type Method = keyof typeof METHODS;

export async function card(page: Page): Promise<void> {
  page.title("开通黑卡");
  const query = { status: "issued" } as const;
  const [{ items: plans }, { items: coupons }, { items: campaigns }] = await Promise.all([
    ok(heika.GET("/v1/plans", { params: { query: { limit: 100 } }, signal: page.left })),
    ok(heika.GET("/v1/me/coupons", { params: { query }, signal: page.left })),
    ok(heika.GET("/v1/coupon-campaigns", { signal: page.left })),
  ]);
  const form = h("form", { class: "card-form" });
  const total = h("div", { class: "total", "aria-live": "polite" });
  const pay = h("button", { type: "submit", class: "wide" }, "去支付");
  // Kept until there is an answer: however often it is pressed, one order is made.
  let key = newKey();

  const chosen = (): { plan_code: string; coupon_token?: string } => {
    const picked = new FormData(form);
    const token = String(picked.get("coupon") ?? "");
    return { plan_code: String(picked.get("plan")), ...(token === "" ? {} : { coupon_token: token }) };
  };

  async function quote(): Promise<void> {
    key = newKey();
    const wanted = chosen();
    try {
      const price = await ok(heika.POST("/v1/orders/preview", { body: wanted, signal: page.left }));
      // Meanwhile something else was chosen.
      if (JSON.stringify(wanted) !== JSON.stringify(chosen())) return;
      const after = price.membership_after;
      fill(
        total,
        h("strong", {}, money(price.total)),
        price.discount > 0 && h("span", { class: "off" }, `已优惠 ${money(price.discount)}`),
        after && h("span", { class: "soft small" }, `可用到 ${day(after.ends_at)}`),
      );
      pay.disabled = false;
    } catch (failure) {
      if (page.left.aborted) return;
      fill(total, h("span", { class: "wrong" }, sentence(failure)));
      pay.disabled = true;
    }
  }

  async function order(): Promise<void> {
    const back = `${location.origin}${location.pathname}#/order`;
    const method = String(new FormData(form).get("method")) as Method;
    const call = heika.POST("/v1/orders", {
      params: { header: { "Idempotency-Key": key } },
      body: { ...chosen(), payment_method: method, success_url: back, cancel_url: back },
    });
    const placed = await ok(call);
    // 200: this order was open already, perhaps at another price; it is shown before anything is paid.
    if ((await call).response.status === 200 || placed.checkout === null) return go(`#/order/${placed.id}`);
    location.assign(placed.checkout.url);
  }

  form.addEventListener("change", () => void quote());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void press(pay, order);
  });
  fill(
    form,
    h("fieldset", { class: "plans" }, h("legend", {}, "选择会员卡"), ...plans.map((plan, at) => planChoice(plan, at === 1))),
    h("ul", { class: "benefits", "aria-label": "会员权益" },
      ...(plans[0]?.benefits ?? []).map((benefit) => h("li", {}, BENEFITS[benefit] ?? benefit))),
    coupons.length === 0 && campaigns[0] !== undefined && offer(campaigns[0]),
    coupons.length > 0 && h("label", { for: "coupon" }, "优惠券"),
    coupons.length > 0 && h("select", { id: "coupon", name: "coupon" },
      ...coupons.map((coupon) => h("option", { value: coupon.token }, `${coupon.title}（${worth(coupon)}）`)),
      h("option", { value: "" }, "不使用")),
    h("fieldset", { class: "methods" }, h("legend", {}, "支付方式"),
      ...Object.entries(METHODS).map(([value, words], at) =>
        h("label", {}, h("input", { type: "radio", name: "method", value, checked: at === 0 }), h("span", {}, words)))),
    h("div", { class: "pay-bar" }, total, pay),
  );
  page.show(h("h1", { tabindex: -1 }, "开通黑卡"), form);
  await quote();
}

/** A coupon that may be had for the asking. */
function offer(campaign: Shapes["CampaignOut"]): HTMLElement {
  const take = h("button", { type: "button", class: "chip" }, "领取");
  const shown = h("p", { class: "panel row" }, h("span", {}, `${campaign.title}，${worth(campaign)}`), take);
  take.addEventListener("click", () => void press(take, async () => {
    try {
      await ok(heika.POST("/v1/coupon-campaigns/{campaign_id}/claims", { params: { path: { campaign_id: campaign.id } } }));
      go("#/card");
    } catch (refusal) {
      // Had before, or not meant for this member: the notice says which.
      if (refusal instanceof Refused && refusal.status < 429) shown.remove();
      throw refusal;
    }
  }));
  return shown;
}

const worth = (coupon: { kind: string; value: number }): string =>
  coupon.kind === "amount" ? `减 ${money(coupon.value)}` : `优惠 ${coupon.value}%`;

function planChoice(plan: Shapes["PlanOut"], checked: boolean): HTMLElement {
  return h(
    "label",
    { class: "plan" },
    h("input", { type: "radio", name: "plan", value: plan.code, checked }),
    h("span", { class: "plan-name" }, plan.name),
    h("span", { class: "price" }, money(plan.amount)),
    h("s", { class: "soft small" }, plan.original_amount === null ? "" : money(plan.original_amount)),
    h("span", { class: "small each" }, `${money(Math.round(plan.amount / plan.months))} / 月`),
  );
}
