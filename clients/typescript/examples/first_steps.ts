/** A newcomer's first steps in the sandbox: `node dist/examples/first_steps.js http://127.0.0.1:8000 13900000456` */

import { connect, inMemory, newKey, ok, Refused } from "../src/index.js";

declare const process: { argv: string[] };
const [, , address = "http://127.0.0.1:8000", phone = "13900000456"] = process.argv;

const session = inMemory();
const heika = connect(address, session, "en");

// Log in by a code; the sandbox tells what was sent.
await ok(heika.POST("/v1/auth/otp", { body: { phone } }));
const { code } = await ok(heika.GET("/v1/sandbox/otp", { params: { query: { phone } } }));
session.write(await ok(heika.POST("/v1/auth/otp/verify", { body: { phone, code } })));
const me = await ok(heika.GET("/v1/me"));
console.log("logged in", me.id.length);

// Buy a card. The key is kept until there is an answer: asking again buys nothing twice.
const key = newKey();
const buy = () =>
  ok(
    heika.POST("/v1/orders", {
      params: { header: { "Idempotency-Key": key } },
      body: { plan_code: "black-card-3m", payment_method: "wechat_pay" },
    }),
  );
const order = await buy();
console.log("ordered", order.total, (await buy()).id === order.id);

// A phone opens order.checkout.url, where the member pays; here the sandbox does what its button does.
const session_id = new URL(order.checkout?.url ?? "").pathname.split("/").pop() ?? "";
await ok(heika.POST("/v1/sandbox/checkout/{session_id}/pay", { params: { path: { session_id } }, body: {} }));
const params = { path: { order_id: order.id }, query: { refresh: true } };
console.log((await ok(heika.GET("/v1/orders/{order_id}", { params }))).status);

// Later the token is over. Calls go on; those in flight together share one exchange.
const before = session.read()?.refresh_token;
await ok(heika.POST("/v1/sandbox/clock", { body: { advance: "PT16M" } }));
const [first, second] = await Promise.all([ok(heika.GET("/v1/me/membership")), ok(heika.GET("/v1/me"))]);
console.log(first.status, second.id === me.id, session.read()?.refresh_token !== before);

// A refusal says what to do next.
try {
  await ok(heika.POST("/v1/redemptions", { body: { code: "0000-0000-0000-0000" } }));
} catch (refusal) {
  if (!(refusal instanceof Refused)) throw refusal;
  console.log(refusal.status, refusal.code);
}

// Log out, here and there; what needs a login is refused from then on.
await ok(heika.POST("/v1/auth/logout"));
session.write(null);
try {
  await ok(heika.GET("/v1/me"));
} catch (refusal) {
  if (!(refusal instanceof Refused)) throw refusal;
  console.log(refusal.status, refusal.code);
}
