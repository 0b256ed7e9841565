/** Log in by a code: the phone, then the six digits that were sent to it. */

import { h } from "../dom.js";
import { heika, ok, session, visitor } from "../heika.js";
import { go, notice, press, type Page } from "../page.js";

export async function login(page: Page): Promise<void> {
  page.title("登录");
  const phone = h("input", {
    id: "phone", name: "phone", type: "tel", inputmode: "tel", autocomplete: "tel-national", required: true,
    placeholder: "手机号", maxlength: 20, "aria-describedby": "promise",
  });
  const code = h("input", {
    id: "code", name: "code", type: "text", inputmode: "numeric", autocomplete: "one-time-code", required: true,
    placeholder: "6 位验证码", maxlength: 6, pattern: "[0-9]{6}",
  });
  const send = h("button", { type: "button", class: "plain" }, "获取验证码");
  const enter = h("button", { type: "submit", class: "wide" }, "登录");
  const hint = h("p", { class: "hint", "aria-live": "polite" });

  send.addEventListener("click", () => void press(send, async () => {
    if (!phone.reportValidity()) return;
    const sent = await ok(heika.POST("/v1/auth/otp", { body: { phone: phone.value } }));
    notice(`验证码已发送，${Math.round(sent.expires_in / 60)} 分钟内有效。`);
    code.focus();
    await offerSandboxCode();
    return sent.retry_after;
  }));

  // Only a sandbox tells which code it sent; in production there is no such call.
  async function offerSandboxCode(): Promise<void> {
    const { data } = await heika.GET("/v1/sandbox/otp", { params: { query: { phone: phone.value } } });
    if (data === undefined) return;
    const take = h("button", { type: "button", class: "link" }, `沙盒验证码 ${data.code}，点此填入`);
    take.addEventListener("click", () => {
      code.value = data.code;
      enter.focus();
    });
    hint.replaceChildren(take);
  }

  async function logIn(): Promise<void> {
    const body = { phone: phone.value, code: code.value, visitor_id: visitor };
    const { access_token, refresh_token, created } = await ok(heika.POST("/v1/auth/otp/verify", { body }));
    session.write({ access_token, refresh_token });
    notice(created ? "欢迎加入黑卡烘焙！" : "欢迎回来！");
    go(`#/${page.words.join("/")}`);
  }

  page.show(
    h(
      "section",
      { class: "welcome" },
      h("p", { class: "mark", "aria-hidden": "true" }, "黑"),
      h("h1", { tabindex: -1 }, "黑卡烘焙"),
      h("p", { class: "soft" }, "每天一点点，烤出好味道"),
    ),
    h(
      "form",
      { class: "panel", onsubmit: (event) => {
        event.preventDefault();
        void press(enter, logIn);
      } },
      h("label", { for: "phone" }, "手机号"),
      phone,
      h("label", { for: "code" }, "验证码"),
      h("div", { class: "row" }, code, send),
      hint,
      enter,
      h("p", { id: "promise", class: "soft small" }, "未注册的手机号会自动创建账号"),
    ),
  );
}
